"""The warning that embeddings collapse: when it is given, and that a run gives and saves it."""

import json

import numpy as np
import pytest

from simjax.train import from_dict, train
from simjax.train._collapse import collapse_statistics, describe_collapse


def described(embeddings, classes=10):
    embeddings = np.asarray(embeddings, np.float32)
    return describe_collapse(collapse_statistics(embeddings), embeddings, classes) or ""


def test_nearly_equal_embeddings_and_embeddings_on_a_line_are_described(random):
    noise = random.normal(size=(200, 16))
    assert described(noise) == ""
    assert described(noise + 10) == ""
    assert "all images have nearly the same one (spread 1e-06, on a scale from 0 to 1);" in described(
        1e-3 * noise + np.ones(16)
    )
    assert described(noise + 40) == ""  # a common vector does not hide the differences of healthy embeddings
    assert "nearly the same one (spread 0," in described(np.ones((200, 16)))
    line = np.outer(random.normal(size=200), np.ones(16))
    assert "on a line (99.98% of their variance is along one direction);" in described(line + 0.014 * noise)
    assert "on a line" in described(line + np.linspace(0, 10, 16))  # a common vector does not hide it
    assert described(line + 0.2 * noise) == ""
    wide = np.outer(random.normal(size=200), np.ones(64)) + 0.1 * random.normal(size=(200, 64))
    rank = collapse_statistics(wide)["effective_rank_centered"]
    assert rank is not None
    assert rank > 5  # noise in many dimensions hides a line from it
    assert "on a line" in described(wide)


def test_embeddings_that_say_nothing_about_a_collapse_are_not_judged(random):
    line = np.outer(random.normal(size=200), np.ones(16))
    assert described(line, classes=2) == described(line, classes=3) == ""  # as well separated classes may be
    assert "on a line" in described(line, classes=1)  # images without classes
    assert described(line[:, :1]) == described(line[:, :2]) == ""
    assert described(line[:19]) == ""
    assert described(np.zeros((0, 16))) == ""
    for value in (np.inf, np.nan):
        line[7] = value
        assert set(collapse_statistics(line).values()) == {None}
        assert described(line) == ""


def test_the_rows_of_many_images_are_spread_over_all_of_them(random):
    sorted_by_class = random.normal(size=(10, 8))[np.arange(30_011) * 10 // 30_011]
    found, whole = collapse_statistics(sorted_by_class), collapse_statistics(sorted_by_class[::7])
    assert found["spread"] == pytest.approx(whole["spread"], rel=0.02)
    assert found["effective_rank_centered"] == pytest.approx(whole["effective_rank_centered"], rel=0.02)


SMALL = {"model": "vit", "objective": "contrastive", "vit": {"depth": 2, "width": 32, "heads": 2}, "steps": 60}


@pytest.mark.slow
def test_a_run_with_a_huge_learning_rate_warns_and_saves_what_was_seen(tmp_path):
    settings = from_dict(SMALL | {"optimizer": {"learning_rate": 3.0}})
    with pytest.warns(
        UserWarning, match="collapsed, all images have nearly the same one .* a lower `optimizer.learning_rate`"
    ) as given:
        report = train(settings, tmp_path / "run").report
    starts = [str(warning.message).split(":")[0] for warning in given]
    assert starts == ["validation images, step 30", "test images"]
    assert str(given[1].message) == f"test images: {report['diagnostics']['collapse']}"
    saved = json.loads((tmp_path / "run" / "report.json").read_text())["diagnostics"]
    assert saved == report["diagnostics"]
    assert saved["spread"] < 1e-3
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {"spread", "effective_rank_centered", "largest_variance_share"} <= set(lines[-1])
    assert lines[-1]["spread"] < 1e-3
