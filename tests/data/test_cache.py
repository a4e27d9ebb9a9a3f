import os
import warnings

import numpy as np
import pytest

from simjax._files import user_cache
from simjax.data import Dataset
from simjax.data._cache import Decoded, cached

IMAGE_BYTES = 1000


@pytest.fixture
def prepared(tmp_path):
    folder = tmp_path / "set" / "1.0.0"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("{}")
    (folder / "set-train.array_record").write_bytes(b"12345")
    return folder


class Maker:
    def __init__(self):
        self.calls = 0

    def __call__(self) -> Decoded:
        self.calls += 1
        images = np.full((10, 10, 10, 1), self.calls, np.uint8)
        return Decoded(Dataset(images, np.arange(10, dtype=np.int32), ("a", "b", "ç")), "images are resized")


def first_pixel(decoded):
    return decoded.dataset.images[0, 0, 0, 0]


def test_the_second_time_nothing_is_made(prepared, own_cache):
    make = Maker()
    first, second = cached(prepared, "train", make), cached(prepared, "train", make)
    assert make.calls == 1
    assert np.array_equal(first.dataset.images, second.dataset.images)
    assert (second.dataset.labels.dtype, second.dataset.class_names) == (np.int32, ("a", "b", "ç"))
    assert second.resizing == "images are resized"
    cached(prepared, "test", make)
    assert make.calls == 2
    assert sorted(path.name for path in prepared.iterdir()) == ["dataset_info.json", "set-train.array_record"]
    assert len(list((own_cache / "simjax" / "images").iterdir())) == 2  # and no temporary file is left


def test_a_warning_is_given_again_from_the_cache(prepared):
    def make():
        warnings.warn("dark images", stacklevel=1)
        return Maker()()

    for _ in range(2):
        with pytest.warns(UserWarning, match="^dark images$") as warned:
            cached(prepared, "train", make)
        assert len(warned) == 1


@pytest.mark.parametrize("change", ["dataset_info.json", "set-train.array_record"])
def test_it_is_made_again_when_the_set_changed(prepared, change):
    make = Maker()
    cached(prepared, "train", make)
    (prepared / change).write_text("other")
    assert first_pixel(cached(prepared, "train", make)) == 2


def test_a_cut_off_cache_is_made_again(prepared, own_cache):
    make = Maker()
    cached(prepared, "train", make)
    (file,) = (own_cache / "simjax" / "images").iterdir()
    file.write_bytes(file.read_bytes()[:200])
    assert first_pixel(cached(prepared, "train", make)) == 2
    assert first_pixel(cached(prepared, "train", make)) == 2


def test_all_files_together_stay_below_the_limit_and_those_used_last_stay(prepared, own_cache):
    make = Maker()
    for i, key in enumerate(("first", "second", "third")):
        cached(prepared, key, make)
        newest = max((own_cache / "simjax" / "images").iterdir(), key=lambda path: path.stat().st_mtime)
        os.utime(newest, (i, i))
    cached(prepared, "first", make)  # from the cache, so that the second is now the oldest
    cached(prepared, "fourth", make, 3.5 * 2 * IMAGE_BYTES / 1e9)
    files = list((own_cache / "simjax" / "images").iterdir())
    assert sum(path.stat().st_size for path in files) <= 3.5 * 2 * IMAGE_BYTES
    assert make.calls == 4
    cached(prepared, "first", make)
    assert make.calls == 4
    cached(prepared, "second", make)
    assert make.calls == 5


@pytest.mark.parametrize("gigabytes", [0.0, 500e-9])
def test_nothing_is_stored_without_room(prepared, own_cache, gigabytes):
    make = Maker()
    cached(prepared, "train", make, gigabytes)
    assert first_pixel(cached(prepared, "train", make, gigabytes)) == 2
    assert list(own_cache.iterdir()) == []


def test_a_read_only_folder_only_costs_time(prepared, own_cache):
    make = Maker()
    (own_cache / "simjax" / "images").mkdir(parents=True)
    (own_cache / "simjax" / "images").chmod(0o555)
    cached(prepared, "train", make)
    assert first_pixel(cached(prepared, "train", make)) == 2
    (own_cache / "simjax" / "images").rmdir()
    (own_cache / "simjax").rmdir()
    (own_cache / "simjax").write_text("a file in the way")
    assert first_pixel(cached(prepared, "train", make)) == 3


def test_a_full_disk_only_costs_time(prepared, monkeypatch, own_cache):
    def full(*paths):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    make = Maker()
    cached(prepared, "train", make)
    assert first_pixel(cached(prepared, "train", make)) == 2
    assert list((own_cache / "simjax" / "images").iterdir()) == []


def test_the_users_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert user_cache() == tmp_path / "cache" / "simjax"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, says the specification
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    assert user_cache() == tmp_path / ".cache" / "simjax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("sys.platform", "darwin")
    assert user_cache() == tmp_path / "Library" / "Caches" / "simjax"
