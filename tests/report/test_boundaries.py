"""Decision regions: the colour of every place is the class that the classifier predicts there."""

import matplotlib.figure
import numpy as np
import pytest

from simjax.core import InputError
from simjax.report import draw_regions

POINTS = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 10.0]])


def test_the_image_is_the_prediction_at_each_place_and_all_points_are_drawn():
    axes = matplotlib.figure.Figure().subplots()
    seen = []

    def predict(rows):
        seen.append(rows)
        return np.where(rows[:, 1] > 6, 9, np.where(rows[:, 0] > 0.5, 5, 3))  # 5 is the class of no point

    draw_regions(axes, predict, POINTS, [3, 3, 9], size=11)
    (image,) = axes.images
    values, (left, right, bottom, top) = np.asarray(image.get_array()), image.get_extent()
    assert (left, right, bottom, top) == pytest.approx((-0.12, 1.12, -1.2, 11.2))
    for i, y in enumerate(np.linspace(bottom, top, 11)):
        for j, x in enumerate(np.linspace(left, right, 11)):
            assert values[i, j] == (2 if y > 6 else 1 if x > 0.5 else 0)
    offsets = [np.asarray(points.get_offsets()).tolist() for points in axes.collections]
    assert offsets == [[[0, 0], [1, 0]], [], [[0, 10]]]
    assert len({str(points.get_facecolor()) for points in axes.collections[::2]}) == 2
    assert (
        len({np.asarray(points.get_paths()[0].vertices).tobytes() for points in axes.collections[::2]}) == 2
    )  # the markers
    assert len(seen) == 1
    assert seen[0].dtype == np.float32


@pytest.mark.parametrize(
    ("points", "labels", "size", "message"),
    [
        (np.zeros((2, 3)), [0, 1], 5, "points: expected one or more finite rows of 2 numbers, got shape \\(2, 3\\)"),
        (np.zeros((0, 2)), [], 5, "points: expected one or more"),
        ([[0.0, np.nan]], [0], 5, "points: expected one or more finite"),
        (POINTS, [0, 1], 5, "labels: expected one for each of 3 points"),
        (POINTS, [0, 1, 1], 1, "size: expected at least 2"),
    ],
)
def test_wrong_arguments_are_named(points, labels, size, message):
    with pytest.raises(InputError, match=message):
        draw_regions(matplotlib.figure.Figure().subplots(), lambda x: x[:, 0] > 0, points, labels, size=size)
