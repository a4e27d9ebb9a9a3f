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
