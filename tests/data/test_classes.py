import numpy as np
import pytest

from simjax.core import InputError
from simjax.data import keep_classes, load, split_name


def test_some_classes_of_a_set():
    whole = load("digits", "train")
    some = load("digits[3,8-9]", "train")
    assert some.class_names == ("3", "8", "9")
    rows = np.isin(whole.labels, [3, 8, 9])
    np.testing.assert_array_equal(some.images, whole.images[rows])
    np.testing.assert_array_equal(np.array([3, 8, 9])[some.labels], whole.labels[rows])


def test_some_classes_of_two_sets():
    some = load("digits[0,1]+digits[8-9]", "test")
    assert some.class_names == ("digits[0,1]/0", "digits[0,1]/1", "digits[8-9]/8", "digits[8-9]/9")


def test_a_folder_whose_name_ends_in_brackets(tmp_path):
    (tmp_path / "photos[1]").mkdir()
    assert split_name(f"folder:{tmp_path}/photos[1]") == (f"folder:{tmp_path}/photos[1]", None)
    assert split_name(f"folder:{tmp_path}/others[1]") == (f"folder:{tmp_path}/others", "1")


@pytest.mark.parametrize(
    ("chosen", "message"),
    [("cut", "did you mean cat"), ("3", "numbers below 3"), ("2-1", "'2-1'"), (" , ", "at least one in brackets")],
)
def test_errors(chosen, message):
    data = load("digits", "train")._replace(class_names=("cat", "dog", "owl"))
    with pytest.raises(InputError, match=message):
        keep_classes(data, chosen)
