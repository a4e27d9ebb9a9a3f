"""The page of the comparison of losses; the trainings behind it take hours."""

import numpy as np
from scipy.stats import ttest_1samp

from benchmarks import metric_learning


def test_an_interval_is_that_of_students_t():
    values = [0.91, 0.94, 0.93]
    low, high = ttest_1samp(values, 0).confidence_interval(0.95)
    assert metric_learning.interval(values) == f"{np.mean(values):.4f} ± {(high - low) / 2:.4f}"
    assert metric_learning.interval([0.5]) == "0.5000"


def test_the_page_has_the_best_first_and_only_what_was_run():
    runs = [
        {
            "case": "mnist_unseen",
            "loss": loss,
            "seed": seed,
            "retrieval": {
                "8 and 9": {"precision_at_1": 0.9, "mean_average_precision_at_r": value},
                "all ten": {"precision_at_1": 0.8, "mean_average_precision_at_r": 1 - value},
            },
        }
        for loss, value in {"circle": 0.5, "multi_similarity": 0.6}.items()
        for seed in range(2)
    ]
    page = metric_learning.markdown({"date": "2020-02-02", "machine": "a machine", "runs": runs})
    assert "## mnist unseen\n\nTrained on `mnist[0-7]`, 3 epochs, a constant rate." in page
    assert "## cifar10 unseen" not in page
    best, second = (page.index(f"| {name} | 0.9000 ± 0.0000 |") for name in ("multi_similarity", "circle"))
    assert best < second
    assert "| 0.6000 ± 0.0000 | 0.8000 ± 0.0000 | 0.4000 ± 0.0000 | 2 |" in page
    assert page.count("`{") == 2, "settings of what was not run"
