"""The few lines that sum up a run, for the terminal and for the top of its report."""

from collections.abc import Mapping
from typing import Any

from simjax.report import _numbers as numbers

_JUDGES = {"classifier": "by its own classifier", "knn": "by its nearest neighbours"}


def summary_lines(report: Mapping[str, Any]) -> list[str]:
    """What a person wants to know first, in a few lines of plain text.

    Args:
        report: the content of report.json; what is missing becomes a dash.

    Example:
        >>> lines = summary_lines({"model": "cnn", "dataset": "digits", "accuracy": 0.9861, "steps": 300})
        >>> lines[1]
        'Test accuracy 98.61%, k-NN accuracy –.'
    """
    retrieval, verification = _part(report, "retrieval"), _part(report, "verification")
    judge = _JUDGES.get(str(report.get("accuracy_of")))
    tested = report.get("test_dataset")
    lines = [
        f"{numbers.text(report.get('model'))} trained on {numbers.text(report.get('dataset'))}"
        f"{f', tested on {tested}' if tested else ''}: objective {numbers.text(report.get('objective'))}, "
        f"{numbers.count(report.get('steps'))} steps in {numbers.seconds(report.get('train_seconds'))}, "
        f"{numbers.count(report.get('parameters'))} parameters, seed {numbers.text(report.get('seed'))}.",
        f"Test accuracy {numbers.percent(report.get('accuracy'))}{f' {judge}' if judge else ''}, "
        f"k-NN accuracy {numbers.percent(report.get('knn_accuracy'))}.",
        f"Retrieval: precision@1 {numbers.percent(retrieval.get('precision_at_1'))}, "
        f"MAP@R {numbers.percent(retrieval.get('mean_average_precision_at_r'))}.",
        f"Verification: ROC AUC {numbers.decimal(verification.get('roc_auc'))}, "
        f"equal error rate {numbers.percent(verification.get('equal_error_rate'))}.",
    ]
    tasks = _part(report, "few_shot")
    if tasks:
        results = (f"{name} {numbers.percent(_part(tasks, name).get('accuracy'))}" for name in tasks)
        lines.append(f"Few-shot: {', '.join(results)}.")
    missing = _part(report, "not_evaluated")
    if missing:
        lines.append(f"Not evaluated: {'; '.join(f'{name} ({reason})' for name, reason in missing.items())}.")
    return lines


def _part(report: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = report.get(name)
    return found if isinstance(found, Mapping) else {}
