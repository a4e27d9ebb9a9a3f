"""The page of a study: the answer, the method, the findings with intervals, and comparisons of the networks."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simjax._files import write_file
from simjax.core import InputError
from simjax.report import _numbers as numbers
from simjax.report._page import Page, Section, Text
from simjax.report._run import Run, parse_json, read_run, read_text
from simjax.report._study_findings import findings
from simjax.report._study_group import Group, Network
from simjax.report._study_method import method
from simjax.report._study_sections import accuracies, gains_by_corruption, group_sections, plan_sections
from simjax.report._write import write_page

PLAN_FILE, ANALYSIS_FILE = "plan.json", "analysis.json"


def write_study(folder: str | Path) -> None:
    """Write study.json, study.md with figures/*.svg, and study.html (self-contained) into the folder of a study.

    Cells that are not finished are missing in the results, and the page names them.

    Raises:
        InputError: If the folder is not that of a study, no cell is finished, a file cannot be read, or runs of one
            data set have different images.
    """
    folder = Path(folder)
    plan = _read(folder / PLAN_FILE)
    analysis = _read(folder / ANALYSIS_FILE) if (folder / ANALYSIS_FILE).is_file() else {}
    groups, missing = read_groups(folder, plan)
    found = {group.title: findings(group) for group in groups}
    alone = len(groups) == 1

    def sections_of(group: Group) -> list[Section]:
        blocks = found[group.title].blocks()
        of_analysis = analysis.get(group.title, {})
        if surprises := gains_by_corruption(of_analysis.get("robustness", {}), group):
            blocks.append(Text(surprises))
        title = "Findings" if alone else f"Findings: {group.title}"
        return [Section(title, blocks), *group_sections(folder, group, of_analysis, alone=alone)]

    answers = [
        found[group.title].answer if alone else f"{group.title}: {found[group.title].answer}"
        for group in groups
        if found[group.title].answer
    ]
    page = Page(
        plan["study"]["title"],
        " ".join(answers) or "The comparisons are below.",
        [
            Section("What was done", method(plan, groups)),
            *(section for group in groups for section in sections_of(group)),
            *plan_sections(groups, missing),
        ],
        overview=[Text(_trained(plan, groups, missing)), *map(accuracies, groups)],
    )
    content = {
        "study": plan["study"],
        "missing": missing,
        "groups": [group.content() | {"findings": found[group.title].content()} for group in groups],
        "analysis": analysis,
    }
    write_page(folder, "study", page)
    write_file(folder / "study.json", json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_groups(folder: Path, plan: dict[str, Any]) -> tuple[list[Group], list[str]]:
    """Return the finished runs, those of one data set and objective in one group, and the names of other cells."""
    grouped: dict[str, dict[tuple[str, str], list[Run]]] = {}
    missing = []
    for name, cell in plan["cells"].items():
        path = folder / "runs" / name
        if not (path / "report.json").is_file():
            missing.append(name)
            continue
        network = cell["settings"]["model"], cell["measure"]
        grouped.setdefault(cell["group"], {}).setdefault(network, []).append(read_run(path))
    if not grouped:
        raise InputError(f"study: expected at least one finished cell in {folder}, got none")
    groups = [
        Group(
            title,
            [
                Network(model, measure, tuple(runs), plan["cells"][runs[0].path.name])
                for (model, measure), runs in of.items()
            ],
        )
        for title, of in grouped.items()
    ]
    for group in groups:
        group.check_same_images()
    return groups, missing


def _trained(plan: dict[str, Any], groups: Sequence[Group], missing: Sequence[str]) -> str:
    networks = [network for group in groups for network in group.networks]
    runs, seeds = sum(len(network.runs) for network in networks), len(plan["study"]["seeds"])
    text = (
        f"{numbers.quantity(runs, 'training run')}: {numbers.quantity(len(networks), 'network')} with "
        f"{numbers.quantity(seeds, 'random seed')} each. "
        "The values in parentheses are intervals."
    )
    return text + (f" Missing of the planned runs: {len(missing)}." if missing else "")


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"study: expected the folder of a study, got {path.parent}, which has no {path.name}")
    return parse_json(read_text(path), str(path))
