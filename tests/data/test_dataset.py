import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits as original_digits

from simjax.core import InputError
from simjax.data import export, load, select_classes, split_name
from simjax.data._dataset import stratified_split


def test_every_class_is_split_75_to_25():
    labels = np.repeat([0, 1, 2], [40, 8, 101])
    train, test = stratified_split(labels)
    assert np.bincount(labels[test]).tolist() == [10, 2, 25]
    assert sorted([*train, *test]) == list(range(149))


def test_small_classes_have_a_training_image_and_a_test_image_if_they_have_two():
    labels = np.repeat([0, 1, 2, 3], [1, 2, 3, 4])
    train, test = stratified_split(labels)
    assert np.bincount(labels[train]).tolist() == [1, 1, 2, 3]
    assert np.bincount(labels[test], minlength=4).tolist() == [0, 1, 1, 1]


def test_the_split_is_deterministic_and_not_the_first_quarter():
    labels = np.zeros(100, int)
    assert np.array_equal(stratified_split(labels)[1], stratified_split(labels)[1])
    assert not np.array_equal(stratified_split(labels)[1], np.arange(25))


def test_no_labels_give_two_empty_parts():
    assert [len(part) for part in stratified_split(np.zeros(0, int))] == [0, 0]


def test_digits_have_the_documented_split():
    train, test, whole = (load("digits", split) for split in ("train", "test", "all"))
    assert (len(train.labels), len(test.labels)) == (1347, 450)
    assert np.bincount(train.labels).tolist() == [133, 136, 133, 137, 136, 136, 136, 134, 131, 135]
    assert np.array_equal(whole.images, np.concatenate([train.images, test.images]))
    assert np.array_equal(whole.labels, np.concatenate([train.labels, test.labels]))


def test_digits_are_scaled_to_bytes_and_have_their_labels():
    whole = load("digits", "all")
    pixels, target = original_digits(return_X_y=True)
    key = [image.tobytes() for image in whole.images]
    expected = {np.rint(p * 255 / 16).astype(np.uint8).tobytes(): t for p, t in zip(pixels, target, strict=True)}
    assert [expected[k] for k in key] == whole.labels.tolist()
    assert (whole.images.min(), whole.images.max()) == (0, 255)


def test_some_classes_of_a_data_set():
    whole = load("digits", "train")
    some = load("digits[3,8-9]", "train")
    assert some.class_names == ("3", "8", "9")
    rows = np.isin(whole.labels, [3, 8, 9])
    np.testing.assert_array_equal(some.images, whole.images[rows])
    np.testing.assert_array_equal(np.array([3, 8, 9])[some.labels], whole.labels[rows])


def test_some_classes_of_two_data_sets():
    some = load("digits[0,1]+digits[8-9]", "test")
    assert some.class_names == ("digits[0,1]/0", "digits[0,1]/1", "digits[8-9]/8", "digits[8-9]/9")


def test_a_folder_whose_name_ends_in_brackets(tmp_path):
    (tmp_path / "photos[1]").mkdir()
    assert split_name(f"folder:{tmp_path}/photos[1]") == (f"folder:{tmp_path}/photos[1]", None)
    assert split_name(f"folder:{tmp_path}/others[1]") == (f"folder:{tmp_path}/others", "1")


@pytest.mark.parametrize(
    ("classes", "message"),
    [("cut", "did you mean cat"), ("3", "numbers below 3"), ("2-1", "'2-1'"), (" , ", "at least one in brackets")],
)
def test_errors_of_classes(classes, message):
    data = load("digits", "train")._replace(class_names=("cat", "dog", "owl"))
    with pytest.raises(InputError, match=message):
        select_classes(data, classes)


def test_exported_images_are_read_back(tmp_path):
    digits = load("digits", "test")
    assert export(digits, tmp_path / "png", ("3", "8")) == np.isin(digits.labels, (3, 8)).sum()
    images, labels, names, paths = load(f"folder:{tmp_path / 'png'}", "all")
    assert names == ("3", "8")
    for label, name in enumerate(names):
        original = digits.images[digits.labels == int(name)]
        found = images[labels == label]
        assert sorted(map(bytes, found)) == sorted(map(bytes, original))


def test_a_failed_export_leaves_no_files(tmp_path):
    digits = load("digits", "test")
    with pytest.raises(InputError, match="unknown class '11'"):
        export(digits, tmp_path / "png", ("1", "11"))
    (tmp_path / "old").mkdir()
    with pytest.raises(InputError, match="old exists"):
        export(digits, tmp_path / "old")
    assert [p.name for p in tmp_path.iterdir()] == ["old"]


def test_a_class_that_is_named_twice_is_exported_once(tmp_path):
    digits = load("digits", "test")
    assert export(digits, tmp_path / "png", ("3", "3")) == (digits.labels == 3).sum()


def test_an_export_leaves_the_hidden_folders_of_others(tmp_path):
    (tmp_path / ".png.part").mkdir()
    (tmp_path / ".png.part" / "mine.txt").write_text("mine")
    export(load("digits", "test"), tmp_path / "png", ("3",))
    assert [path.name for path in (tmp_path / "png").iterdir()] == ["3"]
    assert (tmp_path / ".png.part" / "mine.txt").read_text() == "mine"


def test_the_first_of_two_simultaneous_exports_is_complete_and_the_other_one_is_an_error(tmp_path, monkeypatch):
    digits, save = load("digits", "test"), Image.Image.save

    def save_after_another_export(*arguments):
        monkeypatch.setattr(Image.Image, "save", save)
        export(digits, tmp_path / "png", ("8",))
        save(*arguments)

    monkeypatch.setattr(Image.Image, "save", save_after_another_export)
    with pytest.raises(InputError, match="cannot write .*png: Directory not empty"):
        export(digits, tmp_path / "png", ("3",))
    assert [path.name for path in tmp_path.iterdir()] == ["png"]
    assert [path.name for path in (tmp_path / "png").iterdir()] == ["8"]
    assert len(list((tmp_path / "png" / "8").iterdir())) == (digits.labels == 8).sum()
