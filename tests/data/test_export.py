import numpy as np
import pytest

from simjax.core import InputError
from simjax.data import export, load


def test_what_is_written_is_read_again(tmp_path):
    digits = load("digits", "test")
    assert export(digits, tmp_path / "png", ("3", "8")) == np.isin(digits.labels, (3, 8)).sum()
    images, labels, names = load(f"folder:{tmp_path / 'png'}", "all")
    assert names == ("3", "8")
    for label, name in enumerate(names):
        original = digits.images[digits.labels == int(name)]
        found = images[labels == label]
        assert sorted(map(bytes, found)) == sorted(map(bytes, original))


def test_errors_leave_nothing(tmp_path):
    digits = load("digits", "test")
    with pytest.raises(InputError, match="unknown class '11'"):
        export(digits, tmp_path / "png", ("1", "11"))
    (tmp_path / "there").mkdir()
    with pytest.raises(InputError, match="there exists"):
        export(digits, tmp_path / "there")
    assert [p.name for p in tmp_path.iterdir()] == ["there"]
