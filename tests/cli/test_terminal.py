"""Progress on terminals of several widths, plain lines elsewhere, names, and Ctrl-C in every phase."""

import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys

import pytest
from PIL import Image

from simjax.cli import main
from simjax.train._progress import phase, progress_line
from tests.cli.runs import ROOT, fails, printed_json, read, start, wait_for

QUICK = ["--model", "dnn", "--dnn.widths", "8", "--steps", "6"]
DETAILS = ["loss 1.2345", "0:12 left", "accuracy 0.9012", "12,345 images/s"]


def line(width: int, share: float | None = 0.5, *, details: list[str] = DETAILS, ascii_only: bool = True) -> str:
    return progress_line("step 12/24", share, details, width, ascii_only=ascii_only)


def test_a_wider_terminal_shows_more_details():
    assert line(40) == "step 12/24  ##--  loss 1.2345  0:12 left"
    assert line(60) == "step 12/24  ####---  loss 1.2345  0:12 left  accuracy 0.9012"
    assert line(80) == "step 12/24  #####-----  loss 1.2345  0:12 left  accuracy 0.9012  12,345 images/s"
    assert line(200).count("#") == line(200).count("-") == 20


@pytest.mark.parametrize("width", range(1, 220, 7))
def test_a_progress_line_never_exceeds_the_width(width):
    for share in (None, 0.0, 0.3, 1.0, 7.0):
        assert len(line(width, share=share)) <= width


def test_a_bar_is_empty_at_the_start_and_full_at_the_end():
    assert "#" not in line(80, share=0.0)
    assert "-" not in line(80, share=1.0)
    assert "━" in line(80, ascii_only=False)


def test_a_phase_is_announced_once_if_the_output_is_no_terminal(capsys):
    with phase("evaluating", parts=2) as begin:
        begin("accuracy")
        begin("retrieval")
    assert capsys.readouterr().out == "evaluating\n"


def test_a_long_phase_names_its_parts_if_the_output_is_no_terminal(capsys, monkeypatch):
    monkeypatch.setattr("simjax.train._progress.PLAIN_SECONDS", 0.0)
    with phase("evaluating", parts=2) as begin:
        begin("accuracy")
        begin("retrieval")
    assert capsys.readouterr().out == ("evaluating\nevaluating: accuracy (1 of 2)\nevaluating: retrieval (2 of 2)\n")


def test_a_terminal_does_not_act_on_names(calibrated, capsys):
    name = "Eve\x1b[31m\x9b"
    shutil.copytree("run", name)  # also the name of an encoder, an identity and a folder of images
    for i in range(2):
        Image.new("L", (12, 12), 50 + i).save(f"{name}/{i}.png")
    query = f"{name}/0.png"
    main(["gallery", "add", "G", query, "--identity", name])
    for command in (
        ["gallery", "create", f"{name}/G", "--encoder", name],
        ["calibrate", name, "--images", "strangers"],
        ["gallery", "create", f"{name}/C", "--encoder", name, "--images", "images"],
        ["gallery", "info", f"{name}/C"],
        ["gallery", "search", "G", query, "--html", f"{name}/page.html"],
        ["gallery", "identify", "G", query, "--fpir", "0.1"],
        ["gallery", "duplicates", "G", "--min-score", "0.9"],
        ["explain", name, query, "--out", f"{name}/why.html"],
        ["embed", "run", query, "--out", f"{name}/e.csv"],
        ["classify", "run", query],
        ["fid", name, "images", "others"],
        ["data", "export", "folder:images", "--out", f"{name}/images"],
        ["train", "--resume", "--out", name],
    ):
        main(command)
        printed = "".join(capsys.readouterr())
        assert "Eve\\x1b[31m\\x9b" in printed, command
        assert all(line.isprintable() for line in printed.split("\n")), command
    assert "error: Eve\\x1b[31m" in fails(capsys, "classify", "run", f"{name}/none.png")
    (hit, *_) = printed_json(capsys, "gallery", "search", "G", query)[0]["hits"]
    assert hit["identity"] == name


def run_in_terminal(columns, *arguments):
    """Run `python train.py` in a pseudo-terminal; return its exit status and the lines that were on the screen."""
    import fcntl
    import termios

    main, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")} | {"TERM": "xterm-256color"}
    process = subprocess.Popen(
        [sys.executable, ROOT / "train.py", *map(str, arguments)], stdout=other, stderr=other, env=environment
    )
    os.close(other)
    printed = b""
    while True:
        try:
            printed += os.read(main, 65536)
        except OSError:  # the process closed the terminal
            break
    os.close(main)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", printed.decode())
    return process.wait(), [line for line in re.split(r"[\r\n]+", text) if line]


@pytest.mark.slow
@pytest.mark.parametrize("columns", [40, 200])
def test_progress_fits_the_terminal_and_every_phase_is_shown(columns, tmp_path):
    status, lines = run_in_terminal(columns, *QUICK, "--out", tmp_path / "run")
    assert status == 0, lines
    progress = [line for line in lines if re.match(r"step \d/6  [━┄]", line)]
    assert all(len(line) <= columns for line in progress)
    assert re.fullmatch(r"step 6/6  ━+  loss \d\.\d{4}  \d:\d\d left.*", progress[-1])
    assert ("images/s" in progress[-1]) == (columns >= 80)
    evaluation = [line for line in lines if line.startswith("evaluating 450 test images")]
    assert evaluation
    assert all(len(line) <= columns for line in evaluation)
    assert any(line.startswith("writing the report  ━") for line in lines)


def interrupt_at(text, *arguments):
    """Run `python train.py`, press Ctrl-C when a line begins with the text; return exit status and stderr."""
    process = start(*arguments)
    wait_for(process, text)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    return process.returncode, errors


@pytest.mark.slow
def test_ctrl_c_after_training_tells_how_to_go_on(tmp_path):
    out = tmp_path / "run"
    expected = (130, f"interrupted; go on with: python train.py --resume --out {out}\n")
    assert interrupt_at("evaluating 450 test images", *QUICK, "--out", out) == expected
    assert interrupt_at("writing the report", "--resume", "--out", out) == expected
    assert not (out / "report.html").exists()
    again = start("--resume", "--out", out)
    printed, errors = again.communicate()
    assert again.returncode == 0, errors
    assert "resumed at step 6 of 6" in printed
    assert (out / "report.html").exists()
    assert read(out / "report.json")["steps"] == 6
    assert not list(out.rglob("*.part"))


@pytest.mark.slow
def test_ctrl_c_before_training_begins_advises_no_resumption(tmp_path):
    out = tmp_path / "run"
    assert interrupt_at("dnn on digits", *QUICK, "--out", out) == (130, "interrupted\n")
    assert not out.exists()


@pytest.mark.slow
def test_ctrl_c_that_python_discards_ends_the_process_all_the_same():
    """Python discards exceptions in callbacks of the garbage collector, and replaces those in imports."""
    code = """
import gc, os, signal, sys, time
from simjax.cli._interrupt import exit_on_interrupt
def callback(when, info):
    gc.callbacks.clear()
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000): pass
with exit_on_interrupt(lambda: "bye"):
    if sys.argv[1] == "callback":
        gc.callbacks.append(callback)
        gc.collect()
    else:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(9)
        except KeyboardInterrupt as error:
            raise ImportError("initialization failed") from error
    time.sleep(9)
print("not interrupted")
"""
    for way in ("callback", "import"):
        done = subprocess.run([sys.executable, "-c", code, way], capture_output=True, text=True, cwd=ROOT)
        assert (done.returncode, done.stderr, done.stdout) == (130, "bye\n", ""), way
