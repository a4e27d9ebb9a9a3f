import json
import os
import warnings

import numpy as np
import pytest

from simjax._files import user_cache
from simjax.core import InputError
from simjax.data import Dataset, load, statistics
from simjax.data._prepared import cached, find_prepared
from tests.data.conftest import png


def labelled(features):
    return {"image": features.Image(shape=(None, None, 3)), "label": features.ClassLabel(names=["cat", "dog"])}


def examples(random, n, shape=(9, 9, 3)):
    return [{"image": png(random.integers(0, 256, shape, np.uint8)), "label": i % 2} for i in range(n)]


def test_a_data_set_with_a_config_and_both_splits(tfds_set, random):
    pixels = random.integers(0, 256, (7, 6, 5, 1), np.uint8)
    rows = [{"image": png(image), "label": i % 3} for i, image in enumerate(pixels)]
    root = tfds_set(
        "shapes",
        {"train": rows[:5], "test": rows[5:]},
        lambda f: {"image": f.Image(shape=(6, 5, 1)), "label": f.ClassLabel(num_classes=3)},
        config="small",
    )
    whole = load("tfds:shapes/small", "all", root)
    assert whole.class_names == ("0", "1", "2")
    label_of = {image.tobytes(): i % 3 for i, image in enumerate(pixels)}
    assert [label_of[image.tobytes()] for image in whole.images] == whole.labels.tolist()
    assert [len(load("tfds:shapes/small", split, root).labels) for split in ("train", "test")] == [5, 2]
    assert load("tfds:shapes/small", "test", root, image_size=8, channels=3).images.shape == (2, 8, 8, 3)
    with pytest.raises(InputError, match=r"tfds:shapes is not prepared in .*did you mean shapes/small\?"):
        load("tfds:shapes", "train", root)


def test_images_of_different_sizes_get_the_default_or_the_given_size(tfds_set, random):
    rows = examples(random, 4) + examples(random, 2, (5, 40, 3))
    root = tfds_set("mixed", {"train": rows, "test": examples(random, 2)}, labelled)
    lines = []
    for _ in range(2):  # decoded, and from the cache
        train = load("tfds:mixed", "train", root, progress=lambda *line: lines.append(line[0]))
        assert train.images.shape == (6, 32, 32, 3)
    resized = "images of 9x9 to 5x40 pixels (height x width) are resized to 32x32; those of another aspect ratio are"
    assert lines == [f"mixed: {resized} padded"] * 2
    # All test images have one size, but their format is that of the training images.
    assert load("tfds:mixed", "test", root).images.shape == (2, 32, 32, 3)
    assert load("tfds:mixed", "train", root, image_size=(12, 10)).images.shape == (6, 12, 10, 3)


def test_equal_undeclared_sizes_are_not_changed(tfds_set, random):
    root = tfds_set("same", {"train": examples(random, 4), "validation": examples(random, 2)}, labelled)
    assert load("tfds:same", "train", root).images.shape == (4, 9, 9, 3)
    assert load("tfds:same", "test", root).images.shape == (2, 9, 9, 3)  # its validation split


def test_a_data_set_with_only_a_train_split_is_split_by_class(tfds_set, random):
    root = tfds_set("single", {"train": examples(random, 16)}, labelled)
    train, test, whole = (load("tfds:single", split, root) for split in ("train", "test", "all"))
    assert np.bincount(train.labels).tolist() == [6, 6]
    assert np.bincount(test.labels).tolist() == [2, 2]
    assert np.array_equal(whole.images, np.concatenate([train.images, test.images]))


def test_pixels_stored_as_a_tensor(tfds_set, random):
    pixels = random.integers(0, 256, (4, 6, 6, 1), np.uint8)
    rows = [{"image": image, "label": i % 2} for i, image in enumerate(pixels)]
    root = tfds_set(
        "raw",
        {"train": rows, "test": rows[:2]},
        lambda f: {"image": f.Tensor(shape=(6, 6, 1), dtype=np.uint8), "label": f.ClassLabel(num_classes=2)},
    )
    found = load("tfds:raw", "train", root)
    assert {image.tobytes() for image in found.images} == {image.tobytes() for image in pixels}


def test_damaged_files_and_other_formats_are_errors(tfds_set, random):
    rows = examples(random, 2)
    root = tfds_set("ok", {"train": rows, "test": rows}, labelled)
    folder = find_prepared("ok", root)
    assert folder is not None
    info = json.loads((folder / "dataset_info.json").read_text())
    records = folder / "ok-test.array_record-00000-of-00001"
    records.write_bytes(records.read_bytes()[:100])
    with pytest.raises(InputError, match="split 'test' cannot be read"):
        load("tfds:ok", "test", root)
    (folder / "dataset_info.json").write_text("{")
    with pytest.raises(InputError, match=r"dataset_info\.json: cannot be read"):
        load("tfds:ok", "train", root)
    (folder / "dataset_info.json").write_text(json.dumps({**info, "fileFormat": "tfrecord"}))
    with pytest.raises(InputError, match="stored as tfrecord, which needs TensorFlow"):
        load("tfds:ok", "train", root)


def test_a_damaged_image_is_an_error(tfds_set, random):
    rows = examples(random, 3)
    rows[0]["image"] = rows[0]["image"][:60]
    root = tfds_set("torn", {"train": rows, "test": rows}, labelled)
    with pytest.raises(InputError, match=r"image \d of split 'train' cannot be read"):
        load("tfds:torn", "train", root)


def test_data_sets_without_images_labels_or_a_train_split_are_errors(tfds_set, random):
    picture = png(random.integers(0, 256, (3, 3, 3), np.uint8))
    root = tfds_set("boxes", {"train": [{"image": picture}]}, lambda f: {"image": f.Image()})
    with pytest.raises(InputError, match="expected the features 'image' and 'label', got image"):
        load("tfds:boxes", "train", root)
    tfds_set("held", {"test": examples(random, 2)}, labelled)
    with pytest.raises(InputError, match="has no split 'train', only test"):
        load("tfds:held", "test", root)


def test_the_newest_version_is_found(tmp_path):
    for version in ("1.9.0", "1.10.0", "config", ".1.11.0.partial"):
        (tmp_path / "some" / version).mkdir(parents=True)
        (tmp_path / "some" / version / "dataset_info.json").touch()
    (tmp_path / "some" / "2.0.0").mkdir()  # an incomplete copy
    assert find_prepared("some", tmp_path) == tmp_path / "some" / "1.10.0"
    assert find_prepared("some/1.9.0", tmp_path) == tmp_path / "some" / "1.9.0"
    assert find_prepared("other", tmp_path) is None


IMAGE_BYTES = 1000


@pytest.fixture
def prepared(tmp_path):
    folder = tmp_path / "set" / "1.0.0"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("{}")
    (folder / "set-train.array_record").write_bytes(b"12345")
    return folder


class Decoder:
    def __init__(self):
        self.calls = 0

    def __call__(self) -> tuple[Dataset, str]:
        self.calls += 1
        images = np.full((10, 10, 10, 1), self.calls, np.uint8)
        return Dataset(images, np.arange(10, dtype=np.int32), ("a", "b", "ç")), "images are resized"


def first_pixel(decoded):
    return decoded[0].images[0, 0, 0, 0]


def test_the_second_call_reads_the_cache(prepared, own_cache):
    decode = Decoder()
    (first, _), (second, resizing) = cached(prepared, "train", decode), cached(prepared, "train", decode)
    assert decode.calls == 1
    assert np.array_equal(first.images, second.images)
    assert (second.labels.dtype, second.class_names) == (np.int32, ("a", "b", "ç"))
    assert resizing == "images are resized"
    cached(prepared, "test", decode)
    assert decode.calls == 2
    assert sorted(path.name for path in prepared.iterdir()) == ["dataset_info.json", "set-train.array_record"]
    assert len(list((own_cache / "simjax" / "images").iterdir())) == 2  # and no temporary files


def test_a_warning_is_given_again_from_the_cache(prepared):
    def decode():
        warnings.warn("dark images", stacklevel=1)
        return Decoder()()

    for _ in range(2):
        with pytest.warns(UserWarning, match="^dark images$") as warned:
            cached(prepared, "train", decode)
        assert len(warned) == 1


@pytest.mark.parametrize("change", ["dataset_info.json", "set-train.array_record"])
def test_a_changed_data_set_is_decoded_again(prepared, change):
    decode = Decoder()
    cached(prepared, "train", decode)
    (prepared / change).write_text("other")
    assert first_pixel(cached(prepared, "train", decode)) == 2


def test_a_truncated_cache_file_is_replaced(prepared, own_cache):
    decode = Decoder()
    cached(prepared, "train", decode)
    (file,) = (own_cache / "simjax" / "images").iterdir()
    file.write_bytes(file.read_bytes()[:200])
    assert first_pixel(cached(prepared, "train", decode)) == 2
    assert first_pixel(cached(prepared, "train", decode)) == 2


def test_the_least_recently_used_files_are_deleted_above_the_limit(prepared, own_cache):
    decode = Decoder()
    for i, key in enumerate(("first", "second", "third")):
        cached(prepared, key, decode)
        newest = max((own_cache / "simjax" / "images").iterdir(), key=lambda path: path.stat().st_mtime)
        os.utime(newest, (i, i))
    cached(prepared, "first", decode)  # from the cache, so that the second is now the oldest
    cached(prepared, "fourth", decode, 3.5 * 2 * IMAGE_BYTES / 1e9)
    files = list((own_cache / "simjax" / "images").iterdir())
    assert sum(path.stat().st_size for path in files) <= 3.5 * 2 * IMAGE_BYTES
    assert decode.calls == 4
    cached(prepared, "first", decode)
    assert decode.calls == 4
    cached(prepared, "second", decode)
    assert decode.calls == 5


@pytest.mark.parametrize("gigabytes", [0.0, 500e-9])
def test_no_file_is_written_if_the_limit_is_too_small(prepared, own_cache, gigabytes):
    decode = Decoder()
    cached(prepared, "train", decode, gigabytes)
    assert first_pixel(cached(prepared, "train", decode, gigabytes)) == 2
    assert list(own_cache.iterdir()) == []


def test_a_read_only_cache_folder_is_no_error(prepared, own_cache):
    decode = Decoder()
    (own_cache / "simjax" / "images").mkdir(parents=True)
    (own_cache / "simjax" / "images").chmod(0o555)
    cached(prepared, "train", decode)
    assert first_pixel(cached(prepared, "train", decode)) == 2
    (own_cache / "simjax" / "images").rmdir()
    (own_cache / "simjax").rmdir()
    (own_cache / "simjax").write_text("a file in the way")
    assert first_pixel(cached(prepared, "train", decode)) == 3


def test_a_full_disk_is_no_error(prepared, monkeypatch, own_cache):
    def full(*paths):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    decode = Decoder()
    cached(prepared, "train", decode)
    assert first_pixel(cached(prepared, "train", decode)) == 2
    assert list((own_cache / "simjax" / "images").iterdir()) == []


def test_the_users_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert user_cache() == tmp_path / "cache" / "simjax"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # the specification says to ignore it
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    assert user_cache() == tmp_path / ".cache" / "simjax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("sys.platform", "darwin")
    assert user_cache() == tmp_path / "Library" / "Caches" / "simjax"


@pytest.mark.skipif(
    not os.path.isdir(os.path.join(os.environ.get("TFDS_DATA_DIR", ""), "mnist")),
    reason="needs a prepared mnist in the directory that $TFDS_DATA_DIR names",
)
@pytest.mark.slow
def test_real_mnist():
    train, test = load("mnist", "train", download=False), load("mnist", "test", download=False)
    assert np.bincount(train.labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert test.images.shape == (10_000, 28, 28, 1)
    mean, std = statistics(train.images)
    np.testing.assert_allclose([mean[0], std[0]], [0.1307, 0.3081], atol=5e-5)
