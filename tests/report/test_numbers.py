import numpy as np
import pytest

from simjax.report import _numbers as numbers


@pytest.mark.parametrize("show", [numbers.percent, numbers.decimal, numbers.count, numbers.milliseconds,
                                  numbers.seconds, numbers.text])  # fmt: skip
@pytest.mark.parametrize("missing", [None, float("nan"), float("inf")])
def test_a_missing_value_is_a_dash(show, missing):
    assert show(missing) == "–"


def test_numpy_scalars_are_numbers():
    assert numbers.count(np.int64(450)) == "450"
    assert numbers.percent(np.float32(0.5)) == "50.00%"
    assert numbers.percent(np.bool_(True)) == "–"


@pytest.mark.parametrize(
    ("show", "value", "shown"),
    [
        (numbers.percent, 0.98611, "98.61%"),
        (numbers.decimal, 0.99312, "0.9931"),
        (numbers.count, 37254, "37,254"),
        (numbers.count, 1533.7, "1,534"),
        (numbers.milliseconds, 39.62, "39.6 ms"),
        (numbers.milliseconds, 1234.5, "1,234 ms"),
        (numbers.milliseconds, 0.4567, "0.457 ms"),
        (numbers.seconds, 0.4567, "0.46 s"),
        (numbers.seconds, 12.34, "12.3 s"),
        (numbers.seconds, 83, "1 m 23 s"),
        (numbers.seconds, 7500, "2 h 05 m"),
        (numbers.text, "cnn", "cnn"),
        (numbers.text, "", "–"),
        (numbers.text, 0, "0"),
    ],
)
def test_values_are_formatted(show, value, shown):
    assert show(value) == shown


def test_only_finite_numbers_are_numbers():
    values = [3, float("nan"), None, "3", True]
    assert [numbers.number(value) for value in values] == [3.0, None, None, None, None]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0.00 s"),
        (59.94, "59.9 s"),
        (59.96, "1 m 00 s"),
        (119.6, "2 m 00 s"),
        (3599.6, "1 h 00 m"),
        (3629, "1 h 00 m"),
        (3631, "1 h 01 m"),
        (7199.7, "2 h 00 m"),
    ],
)
def test_seconds_and_minutes_are_below_sixty(value, shown):
    assert numbers.seconds(value) == shown


def test_thousands_have_separators():
    assert numbers.count(1234567) == "1,234,567"
    assert numbers.milliseconds(12345.6) == "12,346 ms"


def test_a_quantity_has_its_noun_in_the_singular_for_one():
    assert [numbers.quantity(x, "epoch") for x in (0, 1, 1.0, 1.5, 2000)] == [
        *("0 epochs", "1 epoch", "1 epoch", "1.5 epochs", "2,000 epochs")
    ]
    assert [numbers.quantity(x, "class", "classes") for x in (1, np.int64(3), None)] == [
        *("1 class", "3 classes", "– classes")
    ]
