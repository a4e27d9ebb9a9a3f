"""`simjax study`: mistakes, a whole small study, a study that is killed and goes on."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from simjax.cli import main
from simjax.cli._study import StudyDisplay
from simjax.study import Cell, CellState
from tests.cli.runs import ROOT, fails, read

FILE = """
title = "small"
models = ["cnn", "vit"]
measures = ["dot", "cosine"]
datasets = ["digits"]
seeds = [0, 1]
analysis_images = 60

[budget]
rule = "epochs"
amount = 3

[settings]
cnn.widths = [8, 8]
vit.width = 16
vit.depth = 1
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(FILE)
    return path


def start(path: Path, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "simjax", "study", str(path), "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def test_mistakes_are_one_line(small, tmp_path, capsys):
    assert "cannot read the study" in fails(capsys, "study", tmp_path / "none.toml")
    small.write_text(FILE.replace('"cosine"', '"cosin"'))
    assert "did you mean cosine" in fails(capsys, "study", small, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    small.write_text(FILE.replace("seeds = [0, 1]", "seeds = [1, 1]"))
    assert "two with the folder" in fails(capsys, "study", small, "--out", tmp_path / "out")
    small.write_text(FILE)
    assert "Not a directory" in fails(capsys, "study", small, "--out", small / "out")


def test_the_line_of_a_failed_cell_has_its_error_unchanged(tmp_path, capsys):
    cell = Cell("dnn", "dot", "softmax", "digits", 0)
    state = CellState(cell, {}, tmp_path, "failed", 1.0, "expected [n] = [3], got :smile: [/n]\x1b")
    with StudyDisplay([state]) as display:
        display.update()
    assert capsys.readouterr().out.splitlines() == [
        "1 cell, 0 of them finished before",
        f"1/1 {cell.name}: failed: expected [n] = [3], got :smile: [/n]\\x1b, 1.0 s",
    ]


@pytest.mark.slow
def test_a_whole_study_is_written_and_not_repeated(small, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    main(["study", str(small), "--out", str(out)])
    printed = capsys.readouterr().out
    assert len(re.findall(r"^\d+/8 .*: accuracy 0\.\d{4}, ", printed, re.MULTILINE)) == 8
    study = read(out / "study.json")
    (group,) = study["groups"]
    assert [(n["model"], n["measure"], len(n["seeds"])) for n in group["networks"]] == [
        (model, measure, 2) for model in ("cnn", "vit") for measure in ("dot", "cosine")
    ]
    assert len(group["findings"]["claims"]) == 2 + 2 + 1
    analysis: dict[str, Any] = study["analysis"][group["title"]]
    assert set(analysis["robustness"]) == {f"{m}-{measure}" for m in ("cnn", "vit") for measure in ("dot", "cosine")}
    assert {kind["kind"] for kind in analysis["layers"]} == {"model", "measure", "seeds", "shuffled"}
    page = (out / "study.html").read_text()
    titles = ("Findings", "Results", "Common errors", "Layers", "Linear probes", "Inside", "Robustness", "Calibration")
    for title in (*titles, "Budgets"):
        assert re.search(f'<h2 id="[^"]*">{title}', page), title
    times = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/report.json")}
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    main(["study", str(small), "--out", str(out), "--open"])
    assert opened == [(out / "study.html").as_uri()]
    assert {path: path.stat().st_mtime_ns for path in out.glob("runs/*/report.json")} == times
    small.write_text(FILE.replace("amount = 3", "amount = 4"))
    assert "budget was" in fails(capsys, "study", small, "--out", out)


@pytest.mark.slow
def test_a_stopped_and_a_killed_study_go_on(small, tmp_path):
    small.write_text(FILE.replace('"cnn", "vit"', '"dnn"'))
    out = tmp_path / "out"
    for number, expected in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
        before = len(list(out.glob("runs/*/report.json")))
        process = start(small, out)
        deadline = time.monotonic() + 300
        while len(list(out.glob("runs/*/report.json"))) == before and time.monotonic() < deadline:
            time.sleep(0.2)
        process.send_signal(number)
        _, errors = process.communicate()
        assert process.returncode == expected, errors
        if number == signal.SIGINT:
            assert errors.count("\n") == 1
            assert f"simjax study {small} --out {out}" in errors or "interrupted" in errors
    finished = {path: path.read_text() for path in out.glob("runs/*/report.json")}
    process = start(small, out)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert {path: path.read_text() for path in finished} == finished
    assert len(list(out.glob("runs/*/report.json"))) == 4
    assert json.loads((out / "study.json").read_text())["missing"] == []


@pytest.mark.slow
def test_the_shipped_study_of_digits(tmp_path):
    main(["study", str(ROOT / "configs" / "studies" / "digits.toml"), "--out", str(tmp_path / "out")])
    study = read(tmp_path / "out" / "study.json")
    assert study["missing"] == []
    assert all(min(network["accuracy"]) > 0.8 for network in study["groups"][0]["networks"])
    assert (tmp_path / "out" / "study.html").stat().st_size < 3e6
