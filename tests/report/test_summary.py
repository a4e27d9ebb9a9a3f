import pytest

from simjax import report


def test_the_summary_has_the_main_numbers_and_their_intervals():
    lines = report.summary_lines(
        {
            "model": "cnn",
            "dataset": "digits",
            "test_dataset": None,
            "objective": "softmax",
            "seed": 0,
            "steps": 300,
            "parameters": 93130,
            "train_seconds": 41.26,
            "accuracy": 0.98611,
            "accuracy_interval": [0.96884, 0.99436],
            "accuracy_of": "classifier",
            "confusion": [[180, 5], [0, 175]],
            "retrieval": {"precision_at_1": 0.9522, "precision_at_1_interval": (0.9302, 0.97)},
            "verification": {"equal_error_rate": 0.0211, "equal_error_rate_interval": [0.0142, 0.0291]},
        }
    )
    assert lines == [
        "CNN on digits, softmax objective, seed 0: 300 steps in 41.3 s, 93,130 parameters.",
        "355 of 360 test images are classified correctly: 98.6% (95% interval for other test images: 96.9 to 99.4%).",
        "The nearest other test image is of the same class for 95.2% (93.0 to 97.0%).",
        "Same class or not: 2.1% wrong decisions about pairs at the threshold where both kinds of error are equally "
        "frequent (equal error rate, 1.4 to 2.9%).",
    ]


def test_new_classes_have_lines_of_their_own_and_missing_intervals_are_left_out():
    lines = report.summary_lines(
        {
            "model": "vit",
            "dataset": "digits",
            "test_dataset": "mnist",
            "objective": "triplet",
            "seed": 3,
            "steps": 1500,
            "parameters": 140170,
            "train_seconds": 75,
            "accuracy": 0.9,
            "accuracy_interval": None,
            "accuracy_of": "knn",
            "confusion": [[10]],
            "retrieval": {"precision_at_1": 1.0},
            "verification": None,
            "few_shot": {
                "5-way 1-shot": {"accuracy": 0.6, "accuracy_interval": [0.598, 0.602]},
                "5-way 5-shot": {"accuracy": 0.75},
            },
            "not_evaluated": {"verification": "there is one class"},
        }
    )
    assert lines == [
        "ViT on digits, tested on mnist, triplet objective, seed 3: 1,500 steps in 1 m 15 s, 140,170 parameters.",
        "10 of 10 test images are classified correctly by their nearest neighbours: 90.0%.",
        "The nearest other test image is of the same class for 100.0%.",
        "Same class or not: – wrong decisions about pairs at the threshold where both kinds of error are equally "
        "frequent (equal error rate).",
        "Few-shot: 5-way 1-shot 60.00% (59.80 to 60.20%), 5-way 5-shot 75.0%.",
        "Not evaluated: verification (there is one class).",
    ]


@pytest.mark.parametrize(
    ("interval", "shown"),
    [
        (
            (0.2, 0.8),
            "53% (95% interval for other test images: 20 to 80%).",
        ),
        (
            (0.5, 0.55),
            "53.1% (95% interval for other test images: 50.0 to 55.0%).",
        ),
        (
            (0.53, 0.532),
            "53.12% (95% interval for other test images: 53.00 to 53.20%).",
        ),
        (
            (0.53123, 0.53125),
            "53.12% (95% interval for other test images: 53.12 to 53.12%).",
        ),
        (
            (0.53124, 0.53124),
            "53.1% (95% interval for other test images: 53.1 to 53.1%).",
        ),
    ],
)
def test_a_wide_interval_has_few_decimals(interval, shown):
    assert report.summary_lines({"accuracy": 0.53124, "accuracy_interval": interval})[1].endswith(f": {shown}")


def test_the_summary_of_an_empty_report_has_dashes():
    text = "\n".join(report.summary_lines({"retrieval": None, "verification": None, "few_shot": None}))
    assert "None" not in text
    assert text.count("–") == 12
