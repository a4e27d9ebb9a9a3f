import numpy as np
import pytest

from simjax.core import InputError
from simjax.data import DATASETS, load
from simjax.data._load import _split_sum


def test_the_built_in_names():
    assert DATASETS == ("digits", "mnist", "fashion_mnist", "cifar10", "cifar100")


def test_size_and_channels_are_arguments():
    small = load("digits", "test", image_size=28, channels=3)
    assert small.images.shape == (450, 28, 28, 3)
    assert (small.images[..., 0] == small.images[..., 2]).all()


def test_data_sets_are_concatenated_with_separate_classes(image_folder, random):
    files = {f"{c}/{i}.png": random.integers(0, 256, (10, 12, 3), np.uint8) for c in ("cat", "dog") for i in range(4)}
    root = image_folder(files, name="my+pets")
    both = load(f"digits+folder:{root}", "train")
    assert both.class_names == (*(f"digits/{i}" for i in range(10)), "my+pets/cat", "my+pets/dog")
    assert both.images.shape == (1347 + 6, 10, 12, 3)
    assert np.bincount(both.labels)[-2:].tolist() == [3, 3]
    assert both.labels.dtype == np.int32
    assert np.array_equal(both.labels[:1347], load("digits", "train").labels)
    assert load(f"digits+folder:{root}", "test", image_size=8, channels=1).images.shape == (452, 8, 8, 1)


def test_two_folders_of_one_name_have_different_classes(image_folder):
    pixels = np.zeros((4, 4), np.uint8)
    roots = [
        image_folder({"a/1.png": pixels, "b/1.png": pixels}, name=f"{place}/pets") for place in ("first", "second")
    ]
    names = load(f"folder:{roots[0]}+folder:{roots[1]}", "all").class_names
    assert names == tuple(f"folder:{root}/{c}" for root in roots for c in "ab")
    with pytest.raises(InputError, match="expected different data sets"):
        load("digits+digits", "train")


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("mnist", ["mnist"]),
        ("mnist+cifar10", ["mnist", "cifar10"]),
        ("folder:/x+y+z", ["folder:/x+y+z"]),
        ("folder:/x+y+mnist", ["folder:/x+y", "mnist"]),
        ("mnist+moon", ["mnist", "moon"]),
    ],
)
def test_sums_of_names_are_split(name, parts):
    assert _split_sum(name) == parts


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("minst", "train", "unknown dataset 'minst'.*did you mean mnist"),
        ("digits+moon", "train", "unknown dataset 'moon'"),
        ("folder:", "train", "unknown dataset 'folder:'"),
        ("/tmp", "train", r"unknown dataset '/tmp' \(did you mean folder:/tmp\?\)"),
        ("./no/where[cats]", "train", r"'./no/where' \(did you mean folder:./no/where\?\)"),
        ("~nobody/pets", "train", r"did you mean folder:~nobody/pets\?"),
        ("dir:/tmp", "train", r"did you mean folder:/tmp\?"),
        ("digits+/tmp", "train", r"unknown dataset '/tmp' \(did you mean folder:/tmp\?\)"),
        ("mnist/3.0.1", "train", "did you mean mnist"),
        ("folder:~nobody/pets", "train", "no such folder"),
        ("folder:/dev/null", "train", "it is a file, not a folder"),
        ("digits", "validation", "unknown split 'validation'.*train, test, all"),
    ],
)
def test_unknown_names_are_errors(name, split, message):
    with pytest.raises(InputError, match=message):
        load(name, split)


def test_a_folder_in_the_working_directory_is_suggested(image_folder, tmp_path, monkeypatch):
    image_folder({"a/1.png": np.zeros((4, 4), np.uint8)}, name="cats+dogs")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"'cats\+dogs' \(did you mean folder:cats\+dogs\?\)"):
        load("cats+dogs", "train")


@pytest.mark.parametrize(
    "wrong",
    [
        {"image_size": 0},
        {"image_size": (8, -1)},
        {"channels": 2},
        {"aspect": "keep"},
        {"input_range": (5.0, 5.0)},
        {"input_range": (0.0, float("nan"))},
        {"max_pixels": 0},
    ],
)
def test_impossible_formats_are_errors(wrong, unchecked):
    with pytest.raises(InputError, match=next(iter(wrong))):
        load("digits", "train", **wrong)
