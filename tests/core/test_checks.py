import pytest

from simjax.core import InputError, check_choice, suggestion


def test_the_nearest_name_is_suggested():
    with pytest.raises(InputError, match=r"unknown measure 'cosin' \(did you mean cosine\? valid: dot, cosine\)"):
        check_choice("measure", "cosin", ["dot", "cosine"])


def test_no_suggestion_without_a_similar_name():
    assert suggestion("zzz", ["cnn", "vit"]) == " (valid: cnn, vit)"


def test_a_valid_choice_is_returned():
    assert check_choice("measure", "dot", ["dot", "cosine"]) == "dot"
