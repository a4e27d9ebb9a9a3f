"""README, CONTRIBUTING and docs: names, paths, links and counts exist in the code, and the Python samples run."""

import inspect
import re
from pathlib import Path

import pytest

import simjax
from simjax import data, losses, mining, similarity
from simjax.similarity import _measure
from simjax.train._objectives import MINERS, OBJECTIVES
from tests.slow import mostly_slow

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PAGES}
CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)
NAME = re.compile(rf"(?<![\w./-])(?:simjax\.)?({'|'.join(simjax.__all__)})\.([A-Za-z]\w*)(?![\w-])")
PATH = re.compile(r"(?<![\w./-])(?:docs|benchmarks|configs|simjax|tests)/[\w./*-]*(?:\.\w+|/)")
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")
INSTANCES = {"encoder": simjax.Encoder, "gallery": simjax.Gallery}
"""Samples name a variable like the package of its class."""

NOT_MINERS = {"against", "cross_batch_memory", "hard_negatives", "push", "statistics"}


def code_of(page):
    return "\n".join(CODE.findall(TEXTS[page]))


def samples_of(page):
    """Python samples without a prompt; doctest runs the others."""
    return [code for code in PYTHON.findall(TEXTS[page]) if ">>>" not in code]


def public_functions(package):
    return {name: f for name, f in vars(package).items() if not name.startswith("_") and inspect.isroutine(f)}


def loss_names():
    """Losses alone: a function whose first argument is a loss or a formula makes one."""
    functions = {name: f for name, f in public_functions(losses).items() if name.endswith("_loss")}
    makers = ("loss", "losses", "term_function")
    return {name for name, f in functions.items() if next(iter(inspect.signature(f).parameters)) not in makers}


@pytest.mark.parametrize("page", TEXTS)
def test_every_name_on_a_page_is_public(page):
    files = ("html", "json", "jsonl", "md", "npz", "png", "py")
    named = {(package, name) for package, name in NAME.findall(code_of(page)) if name not in files}
    owners = {package: (getattr(simjax, package), INSTANCES.get(package)) for package, _ in named}
    unknown = [f"{p}.{name}" for p, name in named if not any(hasattr(owner, name) for owner in owners[p])]
    suffixed = re.findall(r"`(\w+_(?:loss|regularizer))`", TEXTS[page])
    unknown += [name for name in suffixed if not hasattr(losses, name)]
    assert unknown == []


@pytest.mark.parametrize("page", TEXTS)
def test_every_path_and_link_on_a_page_exists(page):
    missing = [path for path in PATH.findall(TEXTS[page]) if not any(ROOT.glob(path.rstrip("/")))]
    modules = re.findall(r"python -m benchmarks\.(\w+)", TEXTS[page])
    missing += [module for module in modules if not (ROOT / "benchmarks" / f"{module}.py").is_file()]
    for target, heading in LINK.findall(TEXTS[page]):
        if target.startswith("http"):
            continue
        linked = ROOT / page if not target else (ROOT / page).parent / target
        titles = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE) if heading else []
        anchors = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
        if not linked.exists() or (heading and heading not in anchors):
            missing.append(f"{target}#{heading}")
    assert missing == []


def test_stated_counts_are_those_of_the_packages():
    readme, changes = TEXTS["README.md"], (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    similarity.measure("cosine")  # loads all
    miners = set(public_functions(mining)) - NOT_MINERS
    objectives = {needs.loss for needs in OBJECTIVES.values() if needs.loss is not None}
    named = re.search(r"`--mining\.miner` \|[^|]*: (.*) and (\d+) more", readme)
    assert named is not None
    assert len(named[1].split(", ")) + int(named[2]) == len(MINERS)
    assert re.findall(r"(\d+) losses\]", readme) == [str(len(loss_names()))]
    assert re.findall(r"(\d+) miners\]", readme) == [str(len(miners))]
    assert re.findall(r"any of (\d+) losses by name", readme) == [str(len(objectives))]
    assert re.findall(r"(\d+) more measures", readme) == [str(len(_measure.MEASURES) - 1)]
    assert re.findall(r"(\d+) measures by name", changes) == [str(len(_measure.MEASURES))]


@pytest.mark.parametrize("study", ["mnist", "cifar10"])
def test_intervals_of_a_study_are_those_of_its_page(study):
    link = f"results/{study}/study.md"
    (paragraph,) = (text for text in re.split(r"\n\n", TEXTS["docs/studies.md"]) if link in text)
    intervals = re.findall(r"[-+]\d+\.\d\d(?: \w+){0,2} (\(\S+ to \S+\))", paragraph.replace("\n", " "))
    assert len(intervals) >= 4
    page = (ROOT / "docs" / link).read_text(encoding="utf-8")
    assert [interval for interval in intervals if interval not in page] == []


def test_pages_leave_out_no_loss_miner_objective_or_sampler():
    on_losses = set(re.findall(r"`(\w+)", TEXTS["docs/losses.md"]))
    on_batches = set(re.findall(r"`(\w+)`", TEXTS["docs/batches.md"]))
    miners = set(public_functions(mining)) - NOT_MINERS
    samplers = {name for name in public_functions(data) if name.startswith("sample_")}
    assert loss_names() | miners | set(OBJECTIVES) - {"triplet_margin"} <= on_losses
    assert samplers == {name for name in on_batches if name.startswith("sample_")}


NEEDS_FILES = {"docs/galleries.md"}  # tests/cli/test_guide.py runs it
WITH_SAMPLES = [page for page in TEXTS if samples_of(page) and page not in NEEDS_FILES]


@pytest.mark.parametrize("page", mostly_slow(WITH_SAMPLES, "README.md"))
def test_python_samples_run(page):
    exec(compile("\n".join(samples_of(page)), page, "exec"), {"__name__": page})
