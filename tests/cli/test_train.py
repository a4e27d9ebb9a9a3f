"""`python train.py` in real processes: stopped, killed and resumed, on a full disk, compared, on real data."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from simjax.cli import main
from tests.slow import mostly_slow

ROOT = Path(__file__).parents[2]
QUICK = ["--model", "dnn", "--dnn.widths", "64", "--steps", "40", "--checkpoint-seconds", "0"]


def start(*arguments):
    command = [sys.executable, str(ROOT / "train.py"), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_step(process, step):
    for line in process.stdout:
        found = re.match(r"step (\d+)/", line)
        if found and int(found[1]) >= step:
            return
    raise AssertionError(process.stderr.read())


def final_parameters(run):
    """Return the step and the arrays of the newest checkpoint."""
    import orbax.checkpoint as ocp

    newest = max((run / "checkpoints").iterdir(), key=lambda p: int(p.name) if p.name.isdigit() else -1)
    state = ocp.StandardCheckpointer().restore(newest / "state")
    return int(newest.name), [np.asarray(value) for value in state.values()]


def report_without_times(run):
    report = json.loads((run / "report.json").read_text())
    return {k: v for k, v in report.items() if k not in ("train_seconds", "step_milliseconds", "images_per_second")}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    out = tmp_path_factory.mktemp("uninterrupted") / "run"
    process = start(*QUICK, "--out", out)
    printed, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "report.html" in printed
    return out


@pytest.mark.filterwarnings("ignore:.*sharding:UserWarning")
@pytest.mark.parametrize("number", mostly_slow([signal.SIGKILL, signal.SIGINT], signal.SIGKILL))
def test_a_stopped_and_resumed_run_ends_with_the_same_bits_as_an_uninterrupted_run(uninterrupted, tmp_path, number):
    out = tmp_path / "run"
    process = start(*QUICK, "--out", out)
    wait_for_step(process, 15)
    process.send_signal(number)
    _, errors = process.communicate()
    assert not (out / "report.json").exists()
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert f"--resume --out {out}" in errors
        assert errors.count("\n") == 1
    else:
        assert process.returncode == -signal.SIGKILL
    again = start("--resume", "--out", out)  # the settings come from the run
    printed, errors = again.communicate()
    assert again.returncode == 0, errors
    assert int(re.search(r"resumed at step (\d+) of 40", printed)[1]) >= 12
    (step_a, a), (step_b, b) = final_parameters(out), final_parameters(uninterrupted)
    assert step_a == step_b == 40
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)
    assert report_without_times(out) == report_without_times(uninterrupted)


def test_a_full_disk_is_one_line(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "none", disk], capture_output=True).returncode:
        pytest.skip("this system does not let the test mount a small disk")
    try:
        process = start("--model", "dnn", "--steps", "20", "--checkpoint-seconds", "0", "--out", disk / "run")
        _, errors = process.communicate()
        assert process.returncode == 2
        assert re.fullmatch(r"error: cannot (save|write) .*space.*\n", errors)
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.slow
def test_the_log_has_plain_lines_if_the_output_is_no_terminal(uninterrupted, tmp_path, capsys):
    main(["train", *QUICK, "--steps", "3", "--out", str(tmp_path / "run")])
    printed = capsys.readouterr().out
    assert re.search(r"^step 3/3  loss \d+\.\d{4}  0:00 left  accuracy \d\.\d{4}  [\d,]+ images/s$", printed, re.M)
    assert re.search(r"^step 3/3  validation loss", printed, re.M)
    assert "\x1b" not in printed


def test_options_take_precedence_over_the_configuration_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.toml").write_text('model = "dnn"\nseed = 3\nsteps = 2\n[dnn]\nwidths = [8]\n')
    main(["train", "--config", "a.toml", "--seed", "4"])
    config = json.loads(Path("runs/dnn-digits-softmax-4/config.json").read_text())
    assert config["settings"]["dnn"]["widths"] == [8]
    assert config["command"] == "python train.py --config a.toml --seed 4"
    assert {"jax", "flax", "simjax"} <= set(config["versions"])


def test_two_runs_are_compared(uninterrupted, tmp_path):
    main(["train", *QUICK, "--seed", "1", "--out", str(tmp_path / "other")])
    main(["compare", str(uninterrupted), str(tmp_path / "other"), "--out", str(tmp_path / "both")])
    text = (tmp_path / "both" / "compare.md").read_text()
    assert f"{json.loads((uninterrupted / 'report.json').read_text())['accuracy'] * 100:.2f}" in text
    assert (tmp_path / "both" / "compare.html").stat().st_size > 5_000


def test_files_in_the_format_of_mnist_with_other_content_are_refused(tmp_path, capsys):
    from simjax.data import load

    digits = load("digits", "train")
    source = tmp_path / "idx"
    source.mkdir()
    for part in ("train", "t10k"):
        images = np.pad(digits.images[:40, :, :, 0], ((0, 0), (10, 10), (10, 10)))
        header = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in images.shape)
        (source / f"{part}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        labels = digits.labels[:40].astype(np.uint8)
        (source / f"{part}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + (40).to_bytes(4, "big") + labels.tobytes())
    with pytest.raises(SystemExit) as stop:
        main(["data", "prepare", "mnist", "--from", str(source), "--data-dir", str(tmp_path / "data")])
    assert stop.value.code == 2
    assert "error: " in capsys.readouterr().err
    assert not (tmp_path / "data" / "mnist").exists()


@pytest.mark.slow
@pytest.mark.skipif(
    not os.path.exists(os.path.join(os.environ.get("TFDS_DATA_DIR", ""), "mnist")),
    reason="$TFDS_DATA_DIR holds no prepared mnist",
)
def test_real_mnist_is_learned(tmp_path):
    arguments = ["--model", "dnn", "--dnn.widths", "128", "--steps", "400", "--dataset", "mnist", "--out"]
    main(["train", *arguments, str(tmp_path)])
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["accuracy"] > 0.95
    assert json.loads((tmp_path / "config.json").read_text())["data"]["test_images"] == 10_000
