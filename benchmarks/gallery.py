"""Time and memory of a large gallery: `python -m benchmarks.gallery --items 1000000`.

The embeddings are random and have 128 numbers. One process creates the gallery, another one uses it: it opens it,
searches, adds and removes one item and searches again. "First" includes loading the encoder and compiling the search.
The memory is the largest resident memory of the process (VmHWM); mapped embeddings count while they are in the cache of
the operating system. With --url the gallery is in a database, for instance `postgresql://USER@HOST/DATABASE`; its
server is not part of the memory. Prints the table; with --out, adds it to gallery_size.md and gallery_size.json.
"""

import argparse
import json
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
IMAGES_OF_AN_IDENTITY = 10
ITEMS_OF_A_TRANSACTION = 250_000


def random_rows(n: int, seed: int) -> np.ndarray:
    """Embeddings, float32 [n, SIZE]."""
    return np.random.default_rng(seed).standard_normal((n, SIZE), np.float32)


def create(path: str, items: int) -> dict[str, float]:
    """Create a gallery of random embeddings, and return the seconds of each task."""
    from flax import nnx

    from simjax import nn
    from simjax.encoder import Encoder, EncoderConfig, Preprocessing
    from simjax.gallery import Gallery

    config = EncoderConfig("dnn", {"widths": []}, SIZE, Preprocessing((8, 8, 1), (0.5,), (0.5,)))
    network = nn.DenseNetwork((8, 8, 1), widths=(), embedding_size=SIZE, rngs=nnx.Rngs(0))
    encoder = Encoder([network], config)
    seconds = 0.0
    with Gallery.create(path, encoder, overwrite=True) as gallery:
        for start in range(0, items, ITEMS_OF_A_TRANSACTION):
            count = min(ITEMS_OF_A_TRANSACTION, items - start)
            rows = random_rows(count, seed=start)
            names = [f"identity {(start + i) // IMAGES_OF_AN_IDENTITY}" for i in range(count)]
            paths = [f"/images/{start + i}.png" for i in range(count)]
            seconds += timed(lambda: gallery.add(rows, names, {"part": start}, paths=paths))  # noqa: B023, called now
    return {"create": seconds}


def use(path: str, items: int) -> dict[str, float]:
    """Use a gallery, and return the seconds of each task."""
    from simjax.gallery import Gallery

    queries, new = random_rows(QUERIES, seed=1), random_rows(1, seed=2)
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
    return seconds


def _filtered_search(gallery: Any, queries: np.ndarray) -> Callable[[], Any]:
    return lambda: gallery.search(queries, K, where={"part": 0})


def timed(task: Callable[[], Any]) -> float:
    """Return the seconds of a task."""
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


def in_own_process(step: str, path: str, items: int) -> dict[str, Any]:
    """Return the seconds and the peak memory in bytes of a step."""
    command = [sys.executable, "-m", "benchmarks.gallery", "--items", str(items), "--step", step, path]
    return json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


def both_steps(path: str, items: int) -> list[dict[str, Any]]:
    """Return the records of both steps."""
    return [in_own_process(step, path, items) for step in ("create", "use")]


def markdown(reports: dict[str, dict[str, Any]]) -> str:
    """Return the page.

    Args:
        reports: Reports by store: "folder", "postgresql" or "milvus".
    """
    from benchmarks._report import table

    columns, descriptions = [], []
    for store, report in reports.items():
        cells: dict[str, str] = {}
        for step in report["steps"]:
            cells |= {name: f"{seconds:.3f} s" for name, seconds in step["seconds"].items()}
            cells[f"peak memory of this process ({step['step']})"] = f"{step['peak_bytes'] / 2**20:,.0f} MB"
        if "disk_bytes" in report:
            cells["size on disk"] = f"{report['disk_bytes'] / 2**20:,.0f} MB"
        columns.append(cells)
        versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
        descriptions.append(
            f"{store}: `{report['command']}`, {report['date']}, on {report['machine']}; {versions}.\n\n"
        )
    names = dict.fromkeys(name for cells in columns for name in cells)
    rows = [[name, *(cells.get(name, "") for cells in columns)] for name in names]
    titles = [f"{store}, {report['items']:,} items" for store, report in reports.items()]
    return (
        f"# Galleries with {SIZE} numbers an embedding\n\n{''.join(descriptions)}"
        "Random embeddings, compared by their cosine. One process creates the gallery, another one does the rest.\n"
        "*First* includes loading the encoder, copying the embeddings from a database and compiling the search. The\n"
        "memory is the largest resident memory of the process; mapped embeddings count while they are in the cache of\n"
        "the operating system, and the server of a database does not count.\n\n" + table(["", *titles], rows)
    )


def main() -> int:
    """Run both steps and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gallery", description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000, help="default: 1,000,000")
    parser.add_argument("--url", help="database for the gallery, which is replaced; default: a temporary folder")
    parser.add_argument("--out", type=Path, metavar="DIR", help="add to gallery_size.md and gallery_size.json")
    parser.add_argument("--step", nargs=2, metavar=("STEP", "PATH"), help="do one step and print its record")
    options = parser.parse_args()
    if options.step:
        from benchmarks._timing import resident

        step, path = options.step
        seconds = {"create": create, "use": use}[step](path, options.items)
        print(json.dumps({"step": step, "seconds": seconds, "peak_bytes": resident("VmHWM")}))
        return 0

    from benchmarks._report import environment

    command = f"python -m benchmarks.gallery --items {options.items}"
    report = {"command": command, **environment(), "items": options.items}
    store = "folder"
    if options.url:
        store = options.url.partition(":")[0]
        report |= {"command": f"{command} --url {store}:...", "steps": both_steps(options.url, options.items)}
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "gallery"
            report["steps"] = both_steps(str(path), options.items)
            report["disk_bytes"] = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
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
