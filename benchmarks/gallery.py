"""Time and memory of a large gallery: `python -m benchmarks.gallery --items 1000000`.

The embeddings are random and have 128 numbers. One process creates the gallery, another one uses it: it opens it,
searches, adds and removes one item and searches again. "First" includes loading the encoder and compiling the search.
The memory is the largest resident memory of the process (VmHWM); mapped embeddings count while they are in the cache of
the operating system. With --url the gallery is in a database, for instance `postgresql://USER@HOST/DATABASE`; its
server is not part of the memory. With --index, which is for PostgreSQL, one more process creates an index and another
one searches by it. Random embeddings are the worst case for the recall; --embeddings takes those of `simjax embed`.
Prints the table; with --out, adds it to gallery_size.md and gallery_size.json.
"""

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
if not __package__:  # as `python benchmarks/gallery.py`
    sys.path.insert(0, str(ROOT))

SIZE, QUERIES, K = 128, 10, 10
CANDIDATES = (1000, 400, 100)
IMAGES_OF_AN_IDENTITY = 10
ITEMS_OF_A_TRANSACTION = 250_000


def random_rows(n: int, seed: int) -> np.ndarray:
    """Embeddings, float32 [n, SIZE]."""
    return np.random.default_rng(seed).standard_normal((n, SIZE), np.float32)


def stored_rows(file: str) -> np.ndarray:
    """Embeddings of a file, in random order, float32 [n, e]."""
    return np.random.default_rng(0).permutation(np.load(file)["embedding"])


def query_rows(items: int, file: str | None) -> np.ndarray:
    """Embeddings that are not in the gallery, float32 [QUERIES, e]."""
    return random_rows(QUERIES, seed=1) if file is None else stored_rows(file)[items : items + QUERIES]


def create(path: str, items: int, file: str | None) -> dict[str, Any]:
    """Create a gallery of random embeddings or those of a file, and return the seconds of each task."""
    from flax import nnx

    from simjax import nn
    from simjax.encoder import Encoder, EncoderConfig, Preprocessing
    from simjax.gallery import Gallery

    stored = None if file is None else stored_rows(file)
    size = SIZE if stored is None else stored.shape[1]
    config = EncoderConfig("dnn", {"widths": []}, size, Preprocessing((8, 8, 1), (0.5,), (0.5,)))
    network = nn.DenseNetwork((8, 8, 1), widths=(), embedding_size=size, rngs=nnx.Rngs(0))
    encoder = Encoder([network], config)
    seconds = 0.0
    with Gallery.create(path, encoder, overwrite=True) as gallery:
        for start in range(0, items, ITEMS_OF_A_TRANSACTION):
            count = min(ITEMS_OF_A_TRANSACTION, items - start)
            rows = random_rows(count, seed=start) if stored is None else stored[start : start + count]
            names = [f"identity {(start + i) // IMAGES_OF_AN_IDENTITY}" for i in range(count)]
            paths = [f"/images/{start + i}.png" for i in range(count)]
            seconds += timed(lambda: gallery.add(rows, names, {"part": start}, paths=paths))  # noqa: B023, called now
    return {"seconds": {"create": seconds}}


def use(path: str, items: int, file: str | None) -> dict[str, Any]:
    """Use a gallery, and return the seconds of each task."""
    from simjax.gallery import Gallery

    queries = query_rows(items, file)
    new = queries[:1] + 1
    opened: list[Gallery] = []
    seconds = {"open": timed(lambda: opened.append(Gallery.open(path)))}
    with opened[0] as gallery:
        search = {f"{QUERIES} queries, k = {K}": lambda: gallery.search(queries, K)}
        filtered = {f"{QUERIES} queries among the items of one transaction": _filtered_search(gallery, queries)}
        for name, task in {**search, **filtered}.items():
            seconds[f"{name}, first"] = timed(task)
            seconds[name] = timed(task)
        seconds["1 query by id"] = timed(lambda: gallery.search(items // 2, K))
        ids: list[int] = []
        seconds["add 1 item"] = timed(lambda: ids.extend(gallery.add(new, "new")))
        seconds["find it"] = timed(lambda: gallery.search(new, 1))
        seconds["remove it"] = timed(lambda: gallery.remove(ids))
        seconds[f"{QUERIES} queries after it"] = timed(lambda: gallery.search(queries, K))
    return {"seconds": seconds}


def create_index(path: str, items: int, file: str | None) -> dict[str, Any]:
    """Create an index, and return the seconds of each task, and the index for each number of candidates."""
    from simjax.gallery import Gallery, Index
    from simjax.gallery._index import indexed

    queries, found = query_rows(items, file), list[Index]()
    with Gallery.open(path) as gallery:
        seconds = {"create the index": timed(indexed(gallery._store).create_index)}
        for count in CANDIDATES:
            tasks = {
                "measure the recall": lambda: found.append(gallery.create_index(count)),  # noqa: B023, called now
                f"{QUERIES} queries": lambda: gallery.search(queries, K, approximate=True),
            }
            seconds |= {f"{name}, {count:,} candidates": timed(task) for name, task in tasks.items()}
    return {"seconds": seconds, "indexes": [index._asdict() for index in found]}


def use_index(path: str, items: int, file: str | None) -> dict[str, Any]:
    """Search by the index of the last number of candidates, and return the seconds of each task."""
    from simjax.gallery import Gallery

    queries, seconds = query_rows(items, file), {}
    filters = {"": None, " among the items of one transaction": {"part": 0}, " of which no item matches": {"part": 1}}
    with Gallery.open(path) as gallery:
        for name, where in filters.items():
            for again in (", first", ""):
                task = functools.partial(gallery.search, queries, K, where=where, approximate=True)
                seconds[f"{QUERIES} queries by the index{name}{again}"] = timed(task)
        seconds["1 query by id by the index"] = timed(lambda: gallery.search(items // 2, K, approximate=True))
        seconds["add 1 item with an index"] = timed(lambda: gallery.add(queries[:1], "new"))
    return {"seconds": seconds}


def _filtered_search(gallery: Any, queries: np.ndarray) -> Callable[[], Any]:
    return lambda: gallery.search(queries, K, where={"part": 0})


def timed(task: Callable[[], Any]) -> float:
    """Return the seconds of a task."""
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


STEPS = {"create": create, "use": use, "create the index": create_index, "search by the index": use_index}


def in_own_processes(path: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the seconds and the peak memory in bytes of each step."""
    command = [sys.executable, "-m", "benchmarks.gallery", "--items", str(options.items)]
    command += ["--embeddings", options.embeddings] if options.embeddings else []
    records = []
    for step in STEPS if options.index else ("create", "use"):
        done = subprocess.run([*command, "--step", step, path], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        records.append(json.loads(done.stdout))
    return records


def markdown(reports: dict[str, dict[str, Any]]) -> str:
    """Return the page.

    Args:
        reports: Reports by store: "folder", "postgresql", "postgresql with an index" or "milvus".
    """
    from benchmarks._report import table

    columns, descriptions = [], []
    for store, report in reports.items():
        cells: dict[str, str] = {}
        for step in report["steps"]:
            cells |= {name: f"{seconds:.3f} s" for name, seconds in step["seconds"].items()}
            for index in step.get("indexes", ()):
                cells[f"recall@10, {index['candidates']:,} candidates"] = f"{index['recall_at_10']:.4f}"
                cells["size of the index"] = f"{index['bytes'] / 2**20:,.0f} MB"
            cells[f"peak memory of this process ({step['step']})"] = f"{step['peak_bytes'] / 2**20:,.0f} MB"
        if "disk_bytes" in report:
            cells["size on disk"] = f"{report['disk_bytes'] / 2**20:,.0f} MB"
        columns.append(cells)
        versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
        load = f"; load average {report['load_average']:.0f}" if "load_average" in report else ""
        descriptions.append(
            f"{store}: `{report['command']}`, {report['date']}, on {report['machine']}{load}; {versions}.\n\n"
        )
    names = dict.fromkeys(name for cells in columns for name in cells)
    rows = [[name, *(cells.get(name, "") for cells in columns)] for name in names]
    titles = [f"{store}, {report['items']:,} items" for store, report in reports.items()]
    return (
        f"# Large galleries\n\n{''.join(descriptions)}"
        f"Random embeddings of {SIZE} numbers, or those of the named file, compared by their cosine. One process\n"
        "creates the gallery, another one searches and changes it; one creates an index, and one searches by it.\n"
        "Times under a load average above the number of cores compare only within a column.\n"
        "*First* includes loading the encoder, copying the embeddings from a database and compiling the search. The\n"
        "memory is the largest resident memory of the process; mapped embeddings count while they are in the cache of\n"
        "the operating system, and the server of a database does not count.\n\n" + table(["", *titles], rows)
    )


def main() -> int:
    """Run both steps and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gallery", description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000, help="default: 1,000,000")
    parser.add_argument("--url", help="database for the gallery, which is replaced; default: a temporary folder")
    parser.add_argument("--index", action="store_true", help="measure an index, too, for a URL of PostgreSQL")
    parser.add_argument("--embeddings", metavar="FILE", help="take those of `simjax embed`; default: random ones")
    parser.add_argument("--out", type=Path, metavar="DIR", help="add to gallery_size.md and gallery_size.json")
    parser.add_argument("--step", nargs=2, metavar=("STEP", "PATH"), help="do one step and print its record")
    options = parser.parse_args()
    if options.step:
        from benchmarks._timing import resident

        step, path = options.step
        record = STEPS[step](path, options.items, options.embeddings)
        print(json.dumps({"step": step, **record, "peak_bytes": resident("VmHWM")}))
        return 0

    from benchmarks._report import environment

    command = f"python -m benchmarks.gallery --items {options.items}"
    report = {"command": command, **environment(), "items": options.items}
    store = "folder"
    if options.url:
        store = options.url.partition(":")[0]
        words = [command, f"--url {store}:...", *(["--index"] if options.index else [])]
        words += [f"--embeddings {Path(options.embeddings).name}"] if options.embeddings else []
        report |= {"command": " ".join(words), "steps": in_own_processes(options.url, options)}
        store += " with an index" if options.index else ""
        store += f", {Path(options.embeddings).stem}" if options.embeddings else ""
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "gallery"
            report["steps"] = in_own_processes(str(path), options)
            report["disk_bytes"] = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    report["load_average"] = os.getloadavg()[1]  # of 5 minutes: above the number of cores, other processes slowed it
    print(markdown({store: report}))
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        file = options.out / "gallery_size.json"
        reports = (json.loads(file.read_text()) if file.exists() else {}) | {store: report}
        file.write_text(json.dumps(reports, indent=1) + "\n")
        (options.out / "gallery_size.md").write_text(markdown(reports))
    return 0


if __name__ == "__main__":
    sys.exit(main())
