"""The commands and the Python sample of docs/galleries.md run as they are written, on digits."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from simjax.cli import main
from tests.cli.runs import ROOT

PAGE = (ROOT / "docs" / "galleries.md").read_text()
DIGITS = {"TRAIN": "01234", "FOLDER": "567", "OTHERS": "89", "SHELF": "4"}


@pytest.mark.slow
def test_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for folder, digits in DIGITS.items():
        main(["data", "export", "digits", "--split", "train", "--classes", *digits, "--out", folder])
    main(["data", "export", "digits", "--split", "test", "--classes", "5", "8", "--out", "test"])
    next(Path("test/5").iterdir()).rename("PROBE.png")
    next(Path("test/8").iterdir()).rename("NEW.png")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    commands = re.findall(r"<!-- commands -->\n```\n(.*?)```", PAGE, re.DOTALL)
    assert len(commands) == 3
    for command in "".join(commands).replace("train.py", str(ROOT / "train.py")).splitlines():
        done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    info = subprocess.run(
        [sys.executable, "-m", "simjax", "gallery", "info", "people.gallery", "--json"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(info.stdout)["identities"] == 3  # the newcomer was added and removed
    assert all("<img" in Path(page).read_text() for page in ("hits.html", "similar.html"))

    (sample,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", sample], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("PROBE.png ")
