from simjax import report


def test_the_summary_has_the_main_numbers():
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
            "accuracy_of": "knn",
            "knn_accuracy": 0.9,
            "retrieval": {"precision_at_1": 0.8, "mean_average_precision_at_r": 0.7},
            "verification": {"roc_auc": 0.95, "equal_error_rate": 0.1},
            "few_shot": {"5-way 1-shot": {"accuracy": 0.6, "accuracy_interval": [0.59, 0.61]}},
        }
    )
    assert lines == [
        "vit trained on digits, tested on mnist: objective triplet, 1,500 steps in 1 m 15 s, 140,170 parameters, "
        "seed 3.",
        "Test accuracy 90.00% by its nearest neighbours, k-NN accuracy 90.00%.",
        "Retrieval: precision@1 80.00%, MAP@R 70.00%.",
        "Verification: ROC AUC 0.9500, equal error rate 10.00%.",
        "Few-shot: 5-way 1-shot 60.00%.",
    ]


def test_the_summary_of_an_empty_report_has_dashes():
    text = "\n".join(report.summary_lines({"retrieval": None, "verification": None, "few_shot": None}))
    assert "None" not in text
    assert text.count("–") == 13
