import os

import numpy as np
import pytest

from simjax.data import Dataset
from simjax.data._cache import cached


@pytest.fixture
def prepared(tmp_path):
    folder = tmp_path / "1.0.0"
    folder.mkdir()
    (folder / "dataset_info.json").write_text("{}")
    (folder / "set-train.array_record").write_bytes(b"12345")
    return folder


class Maker:
    def __init__(self):
        self.calls = 0

    def __call__(self) -> Dataset:
        self.calls += 1
        return Dataset(np.full((3, 2, 2, 1), self.calls, np.uint8), np.arange(3, dtype=np.int32), ("a", "b", "ç"))


def test_the_second_time_nothing_is_made(prepared):
    make = Maker()
    first, second = cached(prepared, "train", make), cached(prepared, "train", make)
    assert make.calls == 1
    assert np.array_equal(first.images, second.images)
    assert (second.labels.dtype, second.class_names) == (np.int32, ("a", "b", "ç"))
    cached(prepared, "test", make)
    assert make.calls == 2
    assert not list(prepared.glob(".*"))  # no temporary file is left


@pytest.mark.parametrize("change", ["dataset_info.json", "set-train.array_record"])
def test_it_is_made_again_when_the_set_changed(prepared, change):
    make = Maker()
    cached(prepared, "train", make)
    (prepared / change).write_text("other")
    assert cached(prepared, "train", make).images[0, 0, 0, 0] == 2


def test_a_cut_off_cache_is_made_again(prepared):
    make = Maker()
    cached(prepared, "train", make)
    (file,) = prepared.glob("simjax-*")
    file.write_bytes(file.read_bytes()[:200])
    assert cached(prepared, "train", make).images[0, 0, 0, 0] == 2
    assert cached(prepared, "train", make).images[0, 0, 0, 0] == 2


def test_a_read_only_set_is_cached_in_the_users_folder(prepared, own_cache):
    make = Maker()
    prepared.chmod(0o555)
    cached(prepared, "train", make)
    cached(prepared, "train", make)
    prepared.chmod(0o755)
    assert make.calls == 1
    assert not list(prepared.glob("simjax-*"))
    assert len(list((own_cache / "simjax").glob("simjax-train-*.npy"))) == 1


def test_a_full_disk_is_no_error(prepared, monkeypatch, own_cache):
    def full(*paths):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    make = Maker()
    cached(prepared, "train", make)
    assert cached(prepared, "train", make).images[0, 0, 0, 0] == 2
    assert [path.name for path in prepared.iterdir() if "simjax" in path.name] == []
    assert list((own_cache / "simjax").iterdir()) == []
