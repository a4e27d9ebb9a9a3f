"""Study files: cells, budgets, and mistakes."""

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest

from simjax.core import InputError
from simjax.study import load_plan, plan_from_dict
from simjax.study._budget import match
from simjax.train._data import load_splits

STUDIES = sorted((Path(__file__).parents[2] / "configs" / "studies").glob("*.toml"))
SMALL: dict[str, Any] = {
    "title": "small",
    "models": ["cnn", "vit", "dnn"],
    "measures": ["dot", "cosine"],
    "datasets": ["digits"],
    "seeds": [0, 1],
    "budget": {"rule": "epochs", "amount": 1},
}


def test_the_cells_are_all_combinations():
    plan = plan_from_dict(SMALL | {"objectives": ["softmax", "triplet"], "vary": {"data.train_fraction": [0.5, 1.0]}})
    cells = plan.cells()
    assert len(cells) == len({cell.name for cell in cells}) == 3 * 2 * 2 * 2 * 2
    expected = set(itertools.product(SMALL["models"], SMALL["measures"], ["softmax", "triplet"], [0, 1], [0.5, 1.0]))
    assert {(c.model, c.measure, c.objective, c.seed, dict(c.varied)["data.train_fraction"]) for c in cells} == expected
    for cell in cells:
        settings = cell.settings(plan.recipe)
        assert getattr(settings, cell.model).measure == cell.measure
        assert (settings.model, settings.objective, settings.seed) == (cell.model, cell.objective, cell.seed)
        assert settings.data.train_fraction == dict(cell.varied)["data.train_fraction"]


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_shipped_studies_are_valid(path):
    assert f"simjax study configs/studies/{path.name}" in path.read_text()
    assert len(load_plan(path).cells()) > 1


def test_a_saved_plan_is_the_same_plan():
    plan = plan_from_dict(SMALL | {"vary": {"vit.depth": [1, 2]}, "settings": {"batch_size": 32}})
    assert plan_from_dict(plan.to_dict()) == plan


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"measures": ["dot", "cosin"]}, "measure.*cosin.*did you mean cosine"),
        ({"models": ["cnm"]}, "cnm"),
        ({"objectives": ["softmx"]}, "did you mean softmax"),
        ({"seeds": [0, 0]}, "two with the folder cnn-dot-softmax-digits-0: the same values twice"),
        ({"datasets": ["folder:a/b", "folder:a?b"]}, "two with the folder .*dataset 'folder:a/b' and 'folder:a"),
        ({"seeds": 3}, "'seeds': expected a list of whole numbers, got 3"),
        ({"modles": ["cnn"]}, "unknown key 'modles' .did you mean models"),
        ({"budget": {"rule": "flops", "amount": 1}}, "'budget.rule': expected one of training_flops"),
        ({"budget": {"rule": "epochs"}}, "'budget.amount': expected a number above 0, got None"),
        ({"budget": {"rule": "epochs", "amount": 1, "max": 2}}, "unknown key 'budget.max'"),
        ({"budget": 3}, "'budget': expected a table"),
        ({"settings": {"batchsize": 3}}, "unknown setting 'batchsize' .did you mean batch_size"),
        ({"vary": {"data.train_fraction": 0.5}}, "vary 'data.train_fraction': expected a list"),
        ({"analysis_images": 0}, "'analysis_images'"),
        ({"title": 5}, "'title': expected text, got 5"),
        ({"vary": {"cnn.measure": ["cosine"]}}, "'cnn.measure' is chosen by the list 'measures'"),
        ({"vary": {"seed": [1]}}, "'seed' is chosen by the list 'seeds'"),
        ({"settings": {"model": "cnn"}}, "'model' is chosen by the list 'models'"),
        ({"settings": {"epochs": 3.0}}, "'epochs' follows from the budget"),
        ({"vary": {"steps": [3]}}, "'steps' follows from the budget"),
    ],
)
def test_mistakes_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        plan_from_dict(SMALL | changes)


def test_settings_of_the_loss_and_lists_as_values_can_be_varied():
    plan = plan_from_dict(SMALL | {"vary": {"loss.measure": ["cosine"], "cnn.widths": [[4], [8]]}})
    assert len({cell.group for cell in plan.cells()}) == 2


def test_a_missing_key_is_named():
    with pytest.raises(InputError, match="'budget' is missing"):
        plan_from_dict({key: value for key, value in SMALL.items() if key != "budget"})


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(InputError, match="cannot read the study .*none.toml"):
        load_plan(tmp_path / "none.toml")
    (tmp_path / "broken.toml").write_text("title = ")
    with pytest.raises(InputError, match="broken.toml is not valid TOML"):
        load_plan(tmp_path / "broken.toml")


def matched(rule: str, amount: float, max_epochs: float | None = None, **changes: Any) -> dict[str, Any]:
    """Return the matched settings of each model on digits."""
    budget = {"rule": rule, "amount": amount} | ({"max_epochs": max_epochs} if max_epochs else {})
    plan = plan_from_dict(SMALL | {"measures": ["dot"], "budget": budget} | changes)
    cells = [cell for cell in plan.cells() if cell.seed == 0]
    splits = load_splits(cells[0].settings(plan.recipe))
    return {cell.model: match(cell.settings(plan.recipe), plan.budget, splits) for cell in cells}


def test_equal_training_flops_give_a_cheaper_network_more_epochs():
    found = matched("training_flops", 1e11)
    for one in found.values():
        assert one.training_flops == pytest.approx(1e11, rel=0.02)
        assert not one.is_capped
    assert found["dnn"].settings.epochs > found["cnn"].settings.epochs
    capped = matched("training_flops", 1e11, models=["dnn"], max_epochs=2)
    assert capped["dnn"].settings.epochs == 2
    assert capped["dnn"].is_capped


def test_the_dot_products_of_the_classifier_count():
    found = matched("epochs", 1, models=["logistic", "dnn"], settings={"dnn": {"widths": [16]}})
    assert found["logistic"].forward_flops == 2 * 64 * 10
    assert found["logistic"].parameters == 64 * 10 + 10
    assert found["dnn"].forward_flops == 2 * (64 * 16 + 16 * 64 + 64 * 10)
    images = found["dnn"].steps * found["dnn"].settings.batch_size
    assert found["dnn"].training_flops == 3 * found["dnn"].forward_flops * images  # the backward pass costs two
    cosine = matched("epochs", 1, models=["logistic"], settings={"loss": {"head": "cosine"}})["logistic"]
    assert (cosine.forward_flops, cosine.parameters) == (2 * 64 * 10, 64 * 10 + 1)
    assert matched("epochs", 1, models=["logistic"], objectives=["arcface"])["logistic"].forward_flops == 0


def test_equal_parameters_scale_the_widths():
    found = matched("parameters", 60_000, max_epochs=3)
    for model, one in found.items():
        assert one.parameters == pytest.approx(60_000, rel=0.25), model
        assert one.settings.epochs == 3
    assert found["vit"].settings.vit.width % found["vit"].settings.vit.heads == 0


def test_equal_epochs_are_epochs():
    assert {one.settings.epochs for one in matched("epochs", 4).values()} == {4.0}


@pytest.mark.slow
def test_equal_seconds_need_fewer_epochs_of_a_slower_network():
    """The times are those of this machine, so only their order is known."""
    found = matched("seconds", 5, max_epochs=1000)
    assert found["dnn"].settings.epochs > found["vit"].settings.epochs > 0


def test_the_rule_does_not_change_other_settings():
    settings = {"optimizer": {"learning_rate": 0.01}, "vit": {"depth": 2}}
    plan = plan_from_dict(SMALL | {"models": ["vit", "dnn"], "measures": ["dot"], "seeds": [0], "settings": settings})
    splits = load_splits(plan.cells()[0].settings(plan.recipe))
    for cell in plan.cells():
        settings = match(cell.settings(plan.recipe), plan.budget, splits).settings
        assert settings.optimizer.learning_rate == 0.01
        assert settings.vit.depth == 2
        assert dataclasses.replace(settings, epochs=None).steps is None
