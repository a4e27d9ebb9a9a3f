"""Mistakes of the user: one line on stderr, exit status 2, no traceback, no files."""

import os
import re
import shutil
import subprocess
import sys
from functools import partial
from operator import attrgetter

import pytest
from PIL import Image

from simjax.cli import main
from simjax.cli._arguments import EQUIVALENT_OPTIONS, options_of, parse
from simjax.cli._encoders import _is_ready
from simjax.cli._main import COMMANDS
from simjax.cli._train import TrainArguments
from simjax.encoder._load import READY
from tests.cli.runs import ROOT, fails, image_folder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("trian", "unknown command 'trian'; did you mean train?"),
        ("galery search x", "unknown command 'galery search'; did you mean gallery search?"),
        ("gallery serch x", "unknown command 'gallery serch'; did you mean gallery search?"),
        ("verfy a.png b.png", "unknown command 'verfy'; did you mean verify?"),
        ("data prepar mnist", "unknown command 'data prepar'; did you mean data prepare"),
        ("--model vit", "unknown command '--model'; simjax --help lists the commands"),
        ("train --model vitt", "--model: expected cnn, vit, dnn, logistic or efficientnet-lite0, got 'vitt'"),
        ("train --model=vitt", "--model: expected cnn, vit, dnn, logistic or efficientnet-lite0, got 'vitt'"),
        ("train --model", "--model: missing value, expected cnn, vit, dnn, logistic or efficientnet-lite0"),
        ("train --modle vit", "unknown option --modle; did you mean --model?"),
        ("train --vit.dpth 3", "unknown option --vit.dpth; did you mean --vit.depth?"),
        ("train --zzz 3", "unknown option --zzz; --help lists the options"),
        ("train --seed x", "--seed: expected a whole number, got 'x'"),
        ("train --seed=x", "--seed: expected a whole number, got 'x'"),
        ("train --steps", "--steps: missing value, expected a whole number"),
        ("train --cnn.widths 8 x", "--cnn.widths: expected whole numbers, got '8 x'"),
        (
            "train --data.image-size 1 2 3",
            "--data.image-size: expected a whole number or two whole numbers, got '1 2 3'",
        ),
        ("train --data.input-range 9", "--data.input-range: expected two numbers, got '9'"),
        ("train --data.input-range 9 0", "setting 'data.input_range': expected less than the highest"),
        ("train vit", "unexpected argument 'vit'; options are --NAME VALUE"),
        ("train --seed 1 2", "unexpected argument '2' after --seed 1"),
        ("train --resume yes", "unexpected argument 'yes' after --resume"),
        ("train --loss.temperature 1", "'loss.temperature': not taken by the objective softmax, but by nt_"),
        ("train --objective circle --mining.angle 9", "not taken by the miner none, but by angular"),
        ("train --objective arcface --mining.miner n_hard", "not taken by the objective arcface, but by"),
        pytest.param(  # the network is initialized before
            *("train --objective circle --loss.gamma -1", "gamma: expected more than 0, got -1"),
            marks=pytest.mark.slow,
        ),
        ("train --dataset minst", "did you mean mnist"),
        ("train --dataset folder:nowhere", "nowhere"),
        ("train --dataset ./nowhere", "unknown dataset './nowhere' (did you mean folder:./nowhere?)"),
        ("train --test-dataset /nowhere", "unknown dataset '/nowhere' (did you mean folder:/nowhere?)"),
        ("train --config none.toml", "cannot read the configuration none.toml"),
        ("train --batch-size 1", "setting 'batch_size': expected at least 2, got 1"),
        ("train --resume --out none", "nothing to resume in none"),
        ("train --resume --overwrite", "nothing to resume in runs/cnn-digits-softmax-0"),
        ("data export nowhere/x --out c", "did you mean folder:nowhere/x?"),
        ("data export digits --out c --data.aspect fit", "--data.aspect: expected pad, crop or stretch, got 'fit'"),
        ("data export", "missing NAME and --out; --help describes the options"),
        ("data export minst --out .", "--out: . exists; choose another folder"),
        ("calibrate digits-cnn --images nowhere --out .", "--out: . exists; choose another folder"),
        ("data export digits", "missing --out; --help describes the options"),
        ("data prepare minst", "did you mean mnist"),
        ("data prepare mnist --from", "--from: missing value, expected a value"),
        ("data export digits --out c --classes", "--classes: missing value, expected values"),
        ("explain digits-cnn F --out c.html --methods", "--methods: missing value, expected values"),
        ("data prepare mnist --from nowhere --data-dir here", "nowhere"),
        ("report a", "expected the folder of a finished run, got a"),
        ("compare a b --out c", "expected the folder of a finished run, got a"),
        ("compare --out c", "runs: expected two or more runs to compare, got 0"),
        ("compare a b", "missing --out"),
        ("gallery search G F -k five", "--k: expected a whole number, got 'five'"),
        ("gallery search G F --k five", "--k: expected a whole number, got 'five'"),
        ("gallery search G F -k", "--k: missing value, expected a whole number"),
        (f"embed digits-cnn a.png --out {'x' * 300}.npz", "its name is too long"),
        (f"embed digits-cnn {'x' * 300}.png --out e.npz", "File name too long"),
        (f"embed {'x' * 300} a.png --out e.npz", "no such folder, and no ready encoder"),
        ("embed digits-cnn a\0.png --out e.npz", "null character"),
    ],
)
def test_a_mistake_is_one_line_with_exit_status_2_and_writes_no_file(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in fails(capsys, *arguments.split())
    assert list(tmp_path.iterdir()) == []


# Arguments of commands; @ begins a path.
PATHS = {
    "train": [
        *("--dataset folder:@images", "--dataset @images", "--test-dataset folder:@images", "--out @run"),
        *("--dataset mnist --data-dir @sets", "--dataset tfds:@name --data-dir .", "--config @c.toml"),
        "--resume --out @run",
    ],
    "report": ["@run"],
    "compare": ["@run --out @c", "images images/a --out @c"],
    "study": ["@s.toml", "s.toml --out @s"],
    "data prepare": ["@mnist --from @idx --data-dir @sets"],
    "data export": ["folder:@images --out @c", "mnist --out c --data-dir @sets"],
    "embed": ["@digits-cnn @images --out @e.npz"],
    "classify": ["@cifar10-cnn @images"],
    "calibrate": ["@digits-cnn --images @images --out @copy"],
    "verify": ["@digits-cnn @images/a/0.png @images/b/0.png"],
    "fid": ["@digits-cnn @images/a @images/b"],
    "explain": [
        "@digits-cnn @images/a/0.png @images/b/0.png --out @p.html",
        "digits-cnn images/a/0.png --gallery @G --out p.html",
    ],
    "gallery create": ["@H --encoder @digits-cnn --images @images"],
    "gallery add": ["@G @images"],
    "gallery remove": ["@G 1"],
    "gallery search": ["@G @images/a/0.png --html @p.html"],
    "gallery identify": ["@G @images/a/0.png --html @p.html"],
    "gallery recommend": ["@G --like 1 --html @p.html"],
    "gallery duplicates": ["@images --encoder @digits-cnn --min-score 1 --html @p.html", "@G"],
    "gallery verify": ["@G @images/a/0.png @images/b/0.png"],
    "gallery calibrate": ["@G --images @images"],
    "gallery copy": ["@G @H"],
    "gallery index": ["@G"],
    "gallery info": ["@G"],
    "gallery list": ["@G"],
}
TEXTS = {"loss.measure", "mining.measure", "classes", "class_name", "methods", "identity", "metadata", "where"}


def with_one_path() -> list[str]:
    """Return the arguments of all commands with @ at one word only."""
    found = []
    for command, arguments in PATHS.items():
        for words in (f"{command} {text}".split() for text in arguments):
            for i in (i for i, word in enumerate(words) if "@" in word):
                found.append(" ".join(word if i == j else word.replace("@", "") for j, word in enumerate(words)))
    return found


def test_every_path_of_every_command_is_among_the_arguments():
    for name, command in COMMANDS.items():
        options = [option for option in options_of(command.dataclass) if "str" in str(option.type)]
        paths = {option.name for option in options if not option.choices} - TEXTS
        parsed = [parse(command.dataclass, text.split()) for text in PATHS.get(name, [])]
        assert {path for path in paths for given in parsed if "@" in str(attrgetter(path)(given))} == paths, name


@pytest.fixture(scope="module")
def images_and_gallery(tmp_path_factory):
    """Return a folder with images, a gallery and the file of a study; commands that fail do not change it."""
    folder = tmp_path_factory.mktemp("place")
    image_folder(folder / "images", each=2, size=8)
    main(["gallery", "create", str(folder / "G"), "--encoder", "digits-cnn", "--images", str(folder / "images")])
    shutil.copy(ROOT / "configs" / "studies" / "digits.toml", folder / "s.toml")
    return folder


@pytest.mark.parametrize("path", ["~nouser/x", "x" * 300], ids=["home", "long"])
@pytest.mark.parametrize("arguments", with_one_path())
def test_a_path_that_no_file_can_have_is_one_line(images_and_gallery, arguments, path, capsys, monkeypatch):
    monkeypatch.chdir(images_and_gallery)
    before = sorted(images_and_gallery.rglob("*"))
    fails(capsys, *re.sub(r"@[^ .]*", path, arguments).split())
    assert sorted(images_and_gallery.rglob("*")) == before


def test_a_ready_encoder_is_recognized_by_every_path_of_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(READY.parent)
    (tmp_path / "link").symlink_to(READY / "digits-cnn")
    (tmp_path / "copy").mkdir()
    shutil.copytree(READY / "digits-cnn", tmp_path / "copy" / "digits-cnn")
    for path in ("digits-cnn", "digits-cnn:64", READY / "digits-cnn", f"{READY.name}/digits-cnn", tmp_path / "link"):
        assert _is_ready(str(path))
    assert not _is_ready(str(tmp_path / "copy" / "digits-cnn"))


@pytest.mark.parametrize(
    ("typed", "suggested"),
    [
        ("--lr", "--optimizer.learning-rate"),
        ("--learning-rate", "--optimizer.learning-rate"),
        ("--learning_rat", "--optimizer.learning-rate"),
        ("--wd", "--optimizer.weight-decay"),
        ("--bs", "--batch-size"),
        ("--batchsize", "--batch-size"),
        ("--epoch", "--epochs"),
        ("-e", "--epochs"),
        ("--loss", "--objective"),
        ("--data", "--dataset"),
        ("--output", "--out"),
        ("--output_dir", "--out"),
        ("--arch", "--model"),
        ("--miner", "--mining.miner"),
        ("--margin", "--loss.margin or --mining.margin"),
    ],
)
def test_options_of_other_programs_are_answered_with_the_option_to_use(typed, suggested, capsys):
    printed = fails(capsys, "train", typed, "1")
    assert printed == f"error: unknown option {typed.replace('_', '-')}; did you mean {suggested}?\n"


def test_options_that_select_a_device_are_answered_with_the_way_to_do_it(capsys):
    assert "JAX_PLATFORMS" in fails(capsys, "train", "--gpu", "0")


def test_underscores_in_options_are_accepted(capsys):
    assert "--batch-size: expected a whole number, got 'x'" in fails(capsys, "train", "--batch_size", "x")


def test_names_that_are_not_text_are_printed_escaped_and_written_as_they_are(tmp_path):
    name = os.fsencode(tmp_path) + b"/\xff.png"
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    os.rename(tmp_path / "a.png", name)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8:strict"}
    run = partial(subprocess.run, capture_output=True, cwd=tmp_path, env=environment)
    done = run([sys.executable, "-m", "simjax", "embed", "digits-cnn", name, "--out", b"\xfe.csv"])
    assert done.stdout == b"1 embedding of 64 numbers: \\udcfe.csv\n"
    assert name in next(tmp_path.glob("*.csv")).read_bytes()
    done = run([sys.executable, "-m", "simjax", "embed", "digits-cnn", b"\xfd.png", "--out", "e.csv"])
    assert done.stderr == b"error: \\udcfd.png: no such file or folder\n"


def test_every_option_suggested_for_a_habit_exists():
    flags = {flag for option in options_of(TrainArguments) for flag in option.flags}
    assert {f"--{flag}" for flag in EQUIVALENT_OPTIONS.values()} <= flags
    assert not {f"--{name}" for name in EQUIVALENT_OPTIONS} & flags


@pytest.mark.parametrize(
    ("option", "typed", "nearest"),
    [
        ("--objective", "tripplet", "triplet, triplet_margin or soft_triple"),
        ("--objective", "NTXent", "nt_xent"),
        ("--mining.miner", "semihard", "semi_hard"),
    ],
)
def test_an_unknown_value_of_many_is_answered_with_the_nearest_ones(option, typed, nearest, capsys):
    printed = fails(capsys, "train", option, typed)
    assert f"{option}: unknown value {typed!r}; did you mean {nearest}" in printed
    assert len(printed) < 150


def test_bad_folders_of_images_are_named_and_unreadable_images_can_be_skipped(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dnn = ["--model", "dnn", "--dnn.widths", "8", "--dataset"]
    images = image_folder(tmp_path / "images")
    broken = images / "a" / "3.png"
    broken.write_bytes(broken.read_bytes()[:60])
    printed = fails(capsys, "train", *dnn, "folder:images")
    assert "3.png" in printed
    assert printed.endswith("; `--data.skip-unreadable` leaves out such images\n")
    one = image_folder(tmp_path / "one", classes=("a",))
    assert "class" in fails(capsys, "train", *dnn, "folder:one")
    printed = fails(capsys, "train", *dnn, f"folder:{one / 'a'}")
    assert "expected a sub-folder with images for each of two or more classes, got 12 images directly in it" in printed
    (tmp_path / "empty").mkdir()
    assert "empty" in fails(capsys, "train", *dnn, "folder:empty")
    image_folder(tmp_path / "small", size=5)
    cnn = ["--model", "cnn", "--cnn.widths", "8", "8", "8", "8"]
    assert "too small" in fails(capsys, "train", *cnn, "--dataset", "folder:small")
    assert not (tmp_path / "runs").exists()

    monkeypatch.setattr("warnings.filters", [])
    main(["data", "export", "folder:images", "--data.skip-unreadable", "--out", "readable"])
    printed = capsys.readouterr()
    assert printed.out == "23 images in readable\n"
    assert printed.err.startswith("warning: ")
    assert "3.png" in printed.err


def test_a_data_set_that_cannot_be_downloaded_is_an_error_with_the_alternatives(tmp_path):
    """The process runs without a network; a wait for it would exceed the timeout, which a busy machine does not."""
    isolated = ["unshare", "--net", "--map-root-user"]
    if subprocess.run([*isolated, "true"], capture_output=True).returncode:
        pytest.skip("this system does not let a process give up its network (unshare --net)")
    done = subprocess.run(
        [*isolated, sys.executable, "-m", "simjax", "train", "--dataset", "mnist", "--data-dir", tmp_path / "none"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    for alternative in ("data prepare mnist --from", "TFDS_DATA_DIR", "digits"):
        assert alternative in done.stderr
    assert list(tmp_path.iterdir()) == []
