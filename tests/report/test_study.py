"""The page of a study: its claims follow from the numbers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simjax.core import InputError
from simjax.evaluate import Comparison, Estimate, compare, error_consistency, mean_estimate
from simjax.report import write_study
from simjax.report._study import read_groups
from simjax.report._study_sections import gains_by_corruption

IMAGES = 2000
PLANNED = {"parameters": 10, "forward_flops": 100, "training_flops": 1e9, "steps": 5, "is_capped": False}


def write_run(folder: Path, correct: np.ndarray, seed: int, fingerprint: str = "f") -> None:
    """Write the files of a run that classifies the given test images correctly."""
    folder.mkdir(parents=True)
    estimate = mean_estimate(correct, np.arange(len(correct)))
    report = {
        "accuracy": estimate.value,
        "accuracy_interval": estimate.interval(),
        "accuracy_of": "classifier",
        "seed": seed,
        "train_seconds": 3.0,
    }
    (folder / "report.json").write_text(json.dumps(report))
    (folder / "config.json").write_text(json.dumps({"data": {"fingerprint": fingerprint, "class_names": ["a", "b"]}}))
    arrays = {"accuracy": estimate.leave_one_out, "accuracy.identities": np.array(estimate.identities)}
    np.savez(folder / "leave_one_out.npz", **arrays)
    np.savez(folder / "predictions.npz", label=np.zeros(len(correct), int), predicted=(~correct).astype(int))


def write_plan(folder: Path, accuracies: dict[str, list[np.ndarray]]) -> dict[str, Any]:
    """Write a study whose network `model-measure` has runs that classify the given images correctly, by seed."""
    cells = {}
    for network, of_seeds in accuracies.items():
        model, measure = network.split("-")
        for seed, correct in enumerate(of_seeds):
            name = f"{model}-{measure}-softmax-digits-{seed}"
            settings = {"model": model, "dataset": "digits", "objective": "softmax", "epochs": 2.0, "seed": seed}
            cells[name] = PLANNED | {"group": "digits, softmax", "measure": measure, "settings": settings}
            write_run(folder / "runs" / name, correct, seed)
    budget = {"rule": "epochs", "amount": 2.0, "max_epochs": 10.0}
    plan = {"study": {"title": "<CNN> against ViT", "seeds": [0, 1, 2], "budget": budget}, "cells": cells}
    (folder / "plan.json").write_text(json.dumps(plan))
    return plan


def with_errors(rate: float, seed: int) -> np.ndarray:
    """Return which images are classified correctly: the errors are random, their number is exact."""
    correct = np.ones(IMAGES, bool)
    correct[np.random.default_rng(seed).permutation(IMAGES)[: round(rate * IMAGES)]] = False
    return correct


def runs(rate: float, start: int) -> list[np.ndarray]:
    return [with_errors(rate + change, start + i) for i, change in enumerate((-0.001, 0.0, 0.001))]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study in which CNN and ViT are equal with the dot product, and only the ViT suffers from the cosine."""
    rates = {"cnn-dot": 0.02, "cnn-cosine": 0.02, "vit-dot": 0.02, "vit-cosine": 0.20}
    write_plan(tmp_path, {name: runs(rate, 10 * i) for i, (name, rate) in enumerate(rates.items())})
    return tmp_path


def test_a_change_of_the_gap_is_claimed(study, undrawn):
    write_study(study)
    found = json.loads((study / "study.json").read_text())["groups"][0]["findings"]
    claims = {claim["subject"]: claim for claim in found["claims"]}
    equal = claims["CNN minus ViT, dot product"]
    assert not equal["shown"]
    assert equal["verdict"] == "no difference shown"
    worse = claims["ViT: cosine minus dot product"]
    assert worse["verdict"] == "more accurate with the dot product"
    assert worse["shown"]
    assert worse["difference"] == pytest.approx(-0.18, abs=1e-9)
    low, high = worse["difference_interval"]
    assert low < -0.18 < high < 0
    gap = claims["CNN minus ViT: cosine minus dot product"]
    assert gap["shown"]
    assert gap["difference"] == pytest.approx(0.18, abs=1e-9)
    assert found["answer"].endswith("So the measure inside the networks matters to the difference between them.")
    confidences = {claim["kind"]: claim["confidence"] for claim in found["claims"]}
    assert confidences == pytest.approx({"question": 1 - 0.05 / 3, "other comparisons": 1 - 0.05 / 2})


def test_equal_networks_are_not_told_apart(tmp_path, undrawn):
    names = ["cnn-dot", "cnn-cosine", "vit-dot", "vit-cosine"]
    write_plan(tmp_path, {name: runs(0.03, 10 * i) for i, name in enumerate(names)})
    write_study(tmp_path)
    found = json.loads((tmp_path / "study.json").read_text())["groups"][0]["findings"]
    assert not any(claim["shown"] for claim in found["claims"])
    assert "no difference between CNN and ViT is shown" in found["answer"]
    assert "do not show that the measure matters to the difference between CNN and ViT" in found["answer"]


def test_the_page_escapes_the_title_and_names_the_missing_runs(study, undrawn):
    (study / "runs" / "vit-cosine-softmax-digits-2" / "report.json").unlink()
    write_study(study)
    page = (study / "study.html").read_text()
    assert "&lt;CNN&gt; against ViT" in page
    assert "vit-cosine-softmax-digits-2" in page
    assert "Missing of the planned runs: 1." in page


def test_a_change_of_single_runs_answers_nothing(study, undrawn):
    for seed in (1, 2):
        (study / "runs" / f"vit-cosine-softmax-digits-{seed}" / "report.json").unlink()
    write_study(study)
    answer = json.loads((study / "study.json").read_text())["groups"][0]["findings"]["answer"]
    assert answer.endswith("A change of single runs: another seed may decide otherwise.")


def test_a_change_is_that_of_the_seeds_that_all_networks_have(tmp_path, undrawn):
    """The values of its row are those that are subtracted."""
    good, bad = runs(0.02, 0), [*runs(0.02, 10)[:2], with_errors(0.3, 12)]  # only the last seed of the CNN is bad
    write_plan(tmp_path, {"cnn-dot": bad, "cnn-cosine": good, "vit-dot": good, "vit-cosine": runs(0.2, 20)})
    (tmp_path / "runs" / "vit-cosine-softmax-digits-2" / "report.json").unlink()
    write_study(tmp_path)
    lines = (tmp_path / "study.md").read_text().splitlines()
    (row,) = (line.split("|") for line in lines if line.startswith("| CNN minus ViT: cosine"))
    first, second, difference = (float(cell.split()[0]) for cell in row[2:5])
    assert first - second == pytest.approx(difference, abs=0.015)  # of two decimals each


def test_common_errors_are_the_means_over_seeds(study, undrawn):
    write_study(study)
    text = (study / "study.md").read_text()
    kappas = [
        error_consistency(with_errors(r, s), with_errors(r, s + 20)).value for s, r in enumerate((0.019, 0.02, 0.021))
    ]
    assert f"{np.mean(np.array(kappas, float)):.2f} (" in text.split("## Common errors")[1].split("another model |")[1]


def test_runs_of_other_images_are_refused(study):
    config = study / "runs" / "vit-dot-softmax-digits-1" / "config.json"
    config.write_text(config.read_text().replace('"f"', '"g"'))
    with pytest.raises(
        InputError, match="expected the same images in all runs of digits, softmax, got fingerprint f in"
    ):
        write_study(study)


def test_a_folder_without_a_plan_or_finished_runs_is_refused(tmp_path):
    with pytest.raises(InputError, match="which has no plan.json"):
        write_study(tmp_path)
    plan = write_plan(tmp_path, {"cnn-dot": [with_errors(0.1, 0)]})
    (tmp_path / "runs" / next(iter(plan["cells"])) / "report.json").unlink()
    with pytest.raises(InputError, match="expected at least one finished cell"):
        read_groups(tmp_path, plan)


def test_a_broken_report_is_named(study):
    (study / "runs" / "cnn-dot-softmax-digits-0" / "report.json").write_text("{")
    with pytest.raises(InputError, match="cnn-dot-softmax-digits-0/report.json: not valid JSON"):
        write_study(study)


def test_runs_of_one_seed_are_paired_if_another_run_is_missing(tmp_path):
    plan = write_plan(tmp_path, {"cnn-dot": runs(0.02, 0), "vit-dot": runs(0.02, 0)})
    (tmp_path / "runs" / "vit-dot-softmax-digits-0" / "report.json").unlink()
    (group,), _ = read_groups(tmp_path, plan)
    found = group.difference(group.networks[0], group.networks[1])
    assert found is not None
    assert (found.runs, found.difference) == (2, 0.0)  # the runs of one seed have the same errors


def interval(found: Comparison | None) -> tuple[float, float]:
    assert found is not None
    assert found.interval is not None
    return found.interval


def test_seeds_vary_as_within_the_measures_of_a_model(study):
    plan = json.loads((study / "plan.json").read_text())
    (group,), _ = read_groups(study, plan)
    cnn, vit = group.find("cnn", "dot"), group.find("vit", "dot")
    assert cnn is not None
    assert vit is not None
    accuracies = list(cnn.accuracies.values()), list(vit.accuracies.values())
    # Three seeds of each of two measures: a variance of 0.001^2 with 4 degrees of freedom for either model.
    of_seeds = [(1e-6 / 3, 4.0), (1e-6 / 3, 4.0)]
    found = interval(group.difference(cnn, vit))
    np.testing.assert_allclose(found, interval(compare(*accuracies, seed_variances=of_seeds)), rtol=1e-9)
    images = interval(compare(*accuracies, seed_variances=[]))
    assert found[0] < images[0] < images[1] < found[1]
    change = interval(group.change_of_gap((cnn, vit), (cnn, vit)))
    none = [Estimate(0.0, np.zeros(IMAGES), tuple(range(IMAGES)), IMAGES, scale="linear")] * 3
    of_seeds = [(2 * variance, freedom) for variance, freedom in of_seeds]  # each model is in the change twice
    np.testing.assert_allclose(change, interval(compare(none, none, seed_variances=of_seeds)), rtol=1e-9)


def test_a_network_that_gains_by_a_corruption_is_named(study):
    plan = json.loads((study / "plan.json").read_text())
    (group,), _ = read_groups(study, plan)
    intervals = [[0.95, 0.97], [0.975, 0.985], [0.94, 0.96]]
    robustness = {"vit-dot": {"blur": {"accuracy": [0.96, 0.98, 0.95], "accuracy_interval": intervals}}}
    assert "ViT, dot product (98.00% with blur, 96.00% without)" in gains_by_corruption(robustness, group)
    intervals[1] = [0.965, 0.99]
    assert gains_by_corruption(robustness, group) == ""


@pytest.mark.parametrize(
    ("rule", "capped", "expected"),
    [
        ("training_flops", 0, "Training ends after 2 billion operations."),
        ("training_flops", 4, "10 epochs for all networks, so that the budgets are not equal"),
        ("seconds", 1, "2,000,000,000 seconds or 10 epochs, whichever is first: 10 epochs for 1 of the 4 networks"),
        ("epochs", 0, "Training ends after 2,000,000,000 epochs."),
        ("parameters", 0, "scaled for 2,000,000,000 parameters: they have 10 to 10, and 10 epochs of training."),
    ],
)
def test_the_budget_is_said_as_it_was_spent(study, undrawn, rule, capped, expected):
    plan = json.loads((study / "plan.json").read_text())
    plan["study"]["budget"] |= {"rule": rule, "amount": 2e9}
    first = [name for name in plan["cells"] if name.endswith("-0")]
    for name in first[:capped]:
        plan["cells"][name]["is_capped"] = True
    (study / "plan.json").write_text(json.dumps(plan))
    write_study(study)
    assert expected in (study / "study.md").read_text()


def answer(folder: Path) -> str:
    write_study(folder)
    return json.loads((folder / "study.json").read_text())["groups"][0]["findings"]["answer"]


@pytest.mark.usefixtures("undrawn")
def test_the_answer_names_the_measures_whatever_their_order(tmp_path):
    rates = {"vit-cosine": 0.20, "vit-dot": 0.02, "cnn-cosine": 0.02, "cnn-dot": 0.02}
    write_plan(tmp_path, {name: runs(rate, 10 * i) for i, (name, rate) in enumerate(rates.items())})
    found = answer(tmp_path)
    assert found.startswith("With the dot product, no difference between CNN and ViT is shown")
    assert "With the cosine instead, it is +18.00 points, a change of +18.00" in found
    claims = json.loads((tmp_path / "study.json").read_text())["groups"][0]["findings"]["claims"]
    assert [claim["kind"] for claim in claims].count("question") == 3
    assert len(claims) == 5


@pytest.mark.usefixtures("undrawn")
def test_single_runs_are_not_taken_for_networks(tmp_path):
    rates = {"cnn-dot": 0.02, "cnn-cosine": 0.02, "vit-dot": 0.02, "vit-cosine": 0.20}
    write_plan(tmp_path, {name: runs(rate, 10 * i)[:1] for i, (name, rate) in enumerate(rates.items())})
    assert answer(tmp_path).endswith("These are single runs: another seed may decide otherwise.")
    claims = json.loads((tmp_path / "study.json").read_text())["groups"][0]["findings"]["claims"]
    assert not any(claim["shown"] for claim in claims)
    assert "the CNN gains on the ViT in these runs" in {claim["verdict"] for claim in claims}


@pytest.mark.usefixtures("undrawn")
def test_settings_that_differ_between_models_are_stated_for_each_model(study):
    plan = json.loads((study / "plan.json").read_text())
    for cell in plan["cells"].values():
        is_cnn = cell["settings"]["model"] == "cnn"
        cell["settings"] |= {
            "batch_size": 128,
            "loss": {"label_smoothing": 0.1},
            "optimizer": {"learning_rate": 0.003 if is_cnn else 0.002, "weight_decay": 0.05},
            "augment": {"enabled": is_cnn, "shift": 0.125, "rotation": 10.0},
        }
    (study / "plan.json").write_text(json.dumps(plan))
    write_study(study)
    text = (study / "study.md").read_text()
    assert "softmax with label smoothing 0.1; AdamW with learning rates up to 0.003 (CNN), 0.002 (ViT)" in text
    assert "weight decay 0.05, batches of 128 images" in text
    assert "shifted by up to 12.5% and rotated by up to 10 degrees (CNN), unchanged (ViT)" in text
