"""Studies in a folder: every cell once, resumed, changed, broken."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simjax.core import InputError
from simjax.study import _run as study_run
from simjax.study import begin_study, plan_from_dict, run_cells, seconds_left
from simjax.train import Interrupted

TINY: dict[str, Any] = {
    "title": "tiny",
    "models": ["dnn"],
    "measures": ["dot", "cosine"],
    "datasets": ["digits"],
    "seeds": [0],
    "budget": {"rule": "epochs", "amount": 0.5},
    "settings": {"dnn": {"widths": [16]}, "embedding_size": 8},
}


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace training by writing report.json; return the names of the trained folders, in order."""
    names: list[str] = []

    def train(settings: Any, folder: Path, *, resume: bool, overwrite: bool, command: str) -> None:
        assert overwrite != resume
        names.append(f"{folder.name} resumed" if resume else folder.name)
        sys.stdout.write("a line of the training\n")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.json").write_text("{}")

    monkeypatch.setattr(study_run, "train", train)
    return names


def test_a_failed_cell_is_named_and_the_others_go_on(tmp_path, trained, monkeypatch, capsys):
    states = begin_study(plan_from_dict(TINY | {"seeds": [0, 1]}), tmp_path / "study")
    working = study_run.train
    broken = states[1].cell.name

    def train(settings: Any, folder: Path, **options: Any) -> Any:
        if folder.name == broken:
            raise RuntimeError("no memory\nleft")
        return working(settings, folder, **options)

    monkeypatch.setattr(study_run, "train", train)
    capsys.readouterr()
    run_cells(states)
    assert [state.status for state in states] == ["finished", "failed", "finished", "finished"]
    assert states[1].error == "no memory left"
    assert capsys.readouterr().out == ""
    assert (tmp_path / "study" / "log.txt").read_text().count("a line of the training") == 3
    monkeypatch.setattr(study_run, "train", working)
    run_cells(begin_study(plan_from_dict(TINY | {"seeds": [0, 1]}), tmp_path / "study"))
    assert trained[3:] == [broken]


def test_a_finished_cell_is_never_run_again(tmp_path, trained):
    plan = plan_from_dict(TINY)
    run_cells(begin_study(plan, tmp_path / "study"))
    states = begin_study(plan, tmp_path / "study")
    run_cells(states)
    assert trained == [state.cell.name for state in states]
    assert all(state.status == "finished" for state in states)


def test_a_cell_that_has_begun_is_resumed(tmp_path, trained):
    plan = plan_from_dict(TINY)
    states = begin_study(plan, tmp_path / "study")
    states[0].folder.mkdir(parents=True)
    (states[0].folder / "config.json").write_text("{}")
    run_cells(states)
    assert trained[0] == f"{states[0].cell.name} resumed"


def test_an_interrupted_study_keeps_its_cells(tmp_path, monkeypatch):
    def train(settings: Any, folder: Path, **rest: Any) -> None:
        raise Interrupted(3, folder)

    monkeypatch.setattr(study_run, "train", train)
    states = begin_study(plan_from_dict(TINY), tmp_path / "study")
    with pytest.raises(Interrupted):
        run_cells(states)
    assert {state.status for state in states} == {"waiting"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": [0, 1]}, r"seeds was \(0,\) and is now \(0, 1\); undo the change, or choose another folder"),
        ({"budget": {"rule": "epochs", "amount": 2}}, "budget was .*amount=0.5.* and is now .*amount=2.0"),
        ({"settings": {"embedding_size": 4}}, "settings was"),
    ],
)
def test_a_changed_study_is_refused(tmp_path, changes, message):
    begin_study(plan_from_dict(TINY), tmp_path / "study")
    with pytest.raises(InputError, match=message):
        begin_study(plan_from_dict(TINY | changes), tmp_path / "study")


def test_another_title_is_no_change(tmp_path):
    begin_study(plan_from_dict(TINY), tmp_path / "study")
    begin_study(plan_from_dict(TINY | {"title": "other", "analysis_images": 100}), tmp_path / "study")


def test_other_files_are_not_touched(tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(InputError, match="which has other files"):
        begin_study(plan_from_dict(TINY), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(InputError, match="plan.json: cannot be read as the plan of a study"):
        begin_study(plan_from_dict(TINY), tmp_path)


def test_the_time_left_is_that_of_similar_cells(tmp_path):
    states = begin_study(plan_from_dict(TINY | {"seeds": [0, 1]}), tmp_path / "study")
    assert seconds_left(states, 0.0) is None
    states[0].status, states[0].seconds = "finished", 10.0
    states[1].status = "running"
    assert seconds_left(states, 4.0) == pytest.approx(6.0 + 2 * 10.0)


def test_seeds_have_the_same_settings_but_for_the_seed(tmp_path):
    states = begin_study(plan_from_dict(TINY | {"seeds": [0, 1]}), tmp_path / "study")
    saved = json.loads((tmp_path / "study" / "plan.json").read_text())["cells"]
    first, second = (saved[state.cell.name] for state in states[:2])
    assert first["settings"].pop("seed") == 0
    assert second["settings"].pop("seed") == 1
    assert first == second
    assert np.isfinite(first["training_flops"])
