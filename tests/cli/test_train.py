"""`simjax train`: settings, comparisons; in real processes: stopped, killed and resumed, on a full disk."""

import os
import re
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest

from simjax.cli import main
from tests.cli.conftest import DATA, QUICK
from tests.cli.runs import assert_same_parameters, fails, read, start, wait_for

LONGER = ["--model", "dnn", "--dnn.widths", "64", "--steps", "40", "--checkpoint-seconds", "0"]


def report_without_times(run):
    report = read(run / "report.json")
    return {k: v for k, v in report.items() if k not in ("train_seconds", "step_milliseconds", "images_per_second")}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Return the folder of a run in a process whose output is no terminal, and the printed lines."""
    out = tmp_path_factory.mktemp("uninterrupted") / "run"
    process = start(*LONGER, "--out", out)
    printed, errors = process.communicate()
    assert process.returncode == 0, errors
    return out, printed.splitlines()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*sharding:UserWarning")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_and_resumed_run_ends_with_the_same_bits_as_an_uninterrupted_run(uninterrupted, tmp_path, number):
    out = tmp_path / "run"
    process = start(*LONGER, "--out", out)
    wait_for(process, r"step (1[5-9]|[2-4]\d)/")
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
    resumed = re.search(r"resumed at step (\d+) of 40", printed)
    assert resumed
    assert int(resumed[1]) >= 12
    assert_same_parameters(out, uninterrupted[0], 40)
    assert report_without_times(out) == report_without_times(uninterrupted[0])


@pytest.mark.slow
def test_plain_lines_are_few_if_the_output_is_no_terminal(uninterrupted):
    _, lines = uninterrupted
    steps = [line for line in lines if re.match(r"step \d+/40  loss", line)]
    assert len(steps) <= 21
    assert re.fullmatch(r"step 40/40  loss \d+\.\d{4}  0:00 left  accuracy \d\.\d{4}  [\d,]+ images/s", steps[-1])
    assert any(re.match(r"step 40/40  validation loss", line) for line in lines)
    assert len(lines) < 50
    assert "evaluating 450 test images" in lines
    assert "writing the report" in lines
    assert lines[-1].endswith("report.html")
    assert not any("\x1b" in line for line in lines)


@pytest.mark.slow
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


def test_options_take_precedence_over_the_configuration_file_and_two_runs_are_compared(place):
    lines = ['model = "dnn"', "seed = 3", "epochs = 4", 'dataset = "folder:images"', 'test_dataset = "folder:others"']
    sections = ["[dnn]", "widths = [8]", "[augment]", "enabled = false", "[optimizer]", 'schedule = "constant"']
    Path("a.toml").write_text("\n".join([*lines, *sections]))
    main(["train", "--config", "a.toml", "--seed", "4"])
    run = Path("runs/dnn-folder_images-folder_others-softmax-4")
    config = read(run / "config.json")
    assert config["settings"]["dnn"]["widths"] == [8]
    assert config["command"] == "python train.py --config a.toml --seed 4"
    assert {"jax", "flax", "simjax"} <= set(config["versions"])
    main(["compare", "run", str(run), "--out", "both"])
    text = Path("both/compare.md").read_text()
    assert f"{read(place / 'run/report.json')['accuracy'] * 100:.2f}" in text
    assert "| dense network | 2 |" in text  # the settings are those of the run, apart from the seed
    assert Path("both/compare.html").stat().st_size > 5_000


def test_a_finished_run_has_a_report(finished):
    settings = read(finished / "run" / "config.json")["settings"]
    assert [settings["model"], settings["dataset"]] == [QUICK[1], DATA[1]]
    page = (finished / "run" / "report.html").read_text()
    assert "<h1>Dense network on images, tested on others</h1>" in page
    assert "Nearest neighbours" in page


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
    fails(capsys, "data", "prepare", "mnist", "--from", source, "--data-dir", tmp_path / "data")
    assert not (tmp_path / "data" / "mnist").exists()


@pytest.mark.slow
@pytest.mark.skipif(
    not os.path.exists(os.path.join(os.environ.get("TFDS_DATA_DIR", ""), "mnist")),
    reason="$TFDS_DATA_DIR holds no prepared mnist",
)
def test_real_mnist_is_learned(tmp_path):
    arguments = ["--model", "dnn", "--dnn.widths", "128", "--steps", "400", "--dataset", "mnist", "--out"]
    main(["train", *arguments, str(tmp_path)])
    assert read(tmp_path / "report.json")["accuracy"] > 0.95
    assert read(tmp_path / "config.json")["data"]["test_images"] == 10_000
