"""The plan of a study: a TOML file with lists of models, measures, objectives, data sets and seeds.

Every combination of the lists is a cell, which is one training run. All cells share one recipe, the settings of the
file, and one rule that gives each of them its budget.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from simjax.core import InputError, suggestion
from simjax.train._settings import Settings, from_dict, read_toml

Rule = Literal["training_flops", "parameters", "seconds", "epochs"]
LISTS = ("models", "measures", "objectives", "datasets", "seeds")
OF_GRID = {"model": "models", "dataset": "datasets", "objective": "objectives", "seed": "seeds", "measure": "measures"}
"""Settings that the lists choose, and the list of each; "measure" is the last part of names such as "cnn.measure"."""


@dataclasses.dataclass(frozen=True)
class Budget:
    """The budget of every cell.

    Attributes:
        rule: What is equal in all cells: "training_flops", the floating-point operations of all steps; "parameters",
            the number of trained parameters, by scaling the widths of each network; "seconds", the training time, from
            the time of a step in a short run; "epochs", the passes over the training images.
        amount: FLOPs, parameters, seconds or epochs.
        max_epochs: Largest number of epochs of a cell for the rules "training_flops" and "seconds"; epochs of every
            cell for "parameters".
    """

    rule: Rule
    amount: float
    max_epochs: float = 100.0


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of a study."""

    model: str
    measure: str
    objective: str
    dataset: str
    seed: int
    varied: tuple[tuple[str, Any], ...] = ()  # further settings by their dotted names

    @property
    def name(self) -> str:
        """Name of the cell's folder."""
        parts = [self.model, self.measure, self.objective, self.dataset, *(f"{k}={v}" for k, v in self.varied)]
        text = "-".join([*parts, str(self.seed)])
        return "".join(c if c.isalnum() or c in "-_+.=" else "_" for c in text)

    @property
    def network(self) -> str:
        """Name of the model with its measure, as "cnn-dot"; the same for all seeds."""
        return f"{self.model}-{self.measure}"

    @property
    def group(self) -> str:
        """Name of the cells with the same images and objective, which are compared."""
        return ", ".join([self.dataset, self.objective, *(f"{key} {value}" for key, value in self.varied)])

    def settings(self, recipe: Settings) -> Settings:
        """Return the settings of the cell's run: those of the recipe, with the choices of the cell."""
        values: dict[str, Any] = {}
        for name, value in self.varied:
            _set(values, name, value)
        section = self.model.replace("-", "_")
        _set(values, f"{section}.measure", self.measure)
        values |= {"model": self.model, "objective": self.objective, "dataset": self.dataset, "seed": self.seed}
        return from_dict(values, recipe)


@dataclasses.dataclass(frozen=True)
class Plan:
    """The content of a study file.

    Attributes:
        title: What is asked.
        models, measures, objectives, datasets, seeds: The grid; a cell is one of each.
        vary: Further settings by their dotted names, with the list of their values.
        budget: The rule by which the cells are matched.
        settings: Settings of all runs.
        analysis_images: Number of test images for the comparison of layers.
    """

    title: str
    models: tuple[str, ...]
    datasets: tuple[str, ...]
    budget: Budget
    measures: tuple[str, ...] = ("dot",)
    objectives: tuple[str, ...] = ("softmax",)
    seeds: tuple[int, ...] = (0,)
    vary: Mapping[str, Sequence[Any]] = dataclasses.field(default_factory=dict)
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    analysis_images: int = 1000

    @property
    def recipe(self) -> Settings:
        """Settings of all runs."""
        return from_dict(self.settings)

    def cells(self) -> list[Cell]:
        """Return the cells, all seeds of a network next to each other.

        Raises:
            InputError: If two cells have the same folder, or a cell has an unknown setting or an invalid value.
        """
        varied = [[(name, value) for value in values] for name, values in self.vary.items()]
        grid = itertools.product(self.datasets, self.objectives, itertools.product(*varied), self.models, self.measures)
        cells = [
            Cell(model, measure, objective, dataset, seed, settings)
            for dataset, objective, settings, model, measure in grid
            for seed in self.seeds
        ]
        folders: dict[str, Cell] = {}
        for cell in cells:
            if (other := folders.setdefault(cell.name, cell)) is not cell:
                raise InputError(
                    f"study: expected different cells, got two with the folder {cell.name}: {_pair(other, cell)}"
                )
            cell.settings(self.recipe)
        return cells

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain values, ready for JSON."""
        return dataclasses.asdict(self)


def load_plan(path: str | Path) -> Plan:
    """Read a study file.

    Raises:
        InputError: If the file cannot be read or is not TOML, or has unknown keys or values of wrong types.
    """
    return plan_from_dict(read_toml(path, "study"))


def plan_from_dict(values: Mapping[str, Any]) -> Plan:
    """Return the plan with the given values, as in a study file or from `Plan.to_dict`.

    Raises:
        InputError: For a missing or unknown key, a value of the wrong type, or a setting that the lists or the budget
            choose.
    """
    fields = {field.name: field for field in dataclasses.fields(Plan)}
    for key in values:
        if key not in fields:
            raise InputError(f"study: unknown key {key!r}{suggestion(key, fields)}")
    for key in ("title", "models", "datasets", "budget"):
        if key not in values:
            raise InputError(f"study: {key!r} is missing")
    converted: dict[str, Any] = dict(values)
    for key in LISTS:
        if key in values:
            converted[key] = _list(key, values[key], int if key == "seeds" else str)
    for key in ("budget", "vary", "settings"):
        if not isinstance(values.get(key, {}), Mapping):
            raise InputError(f"study: {key!r}: expected a table, got {values[key]!r}")
    if not isinstance(values["title"], str):
        raise InputError(f"study: 'title': expected text, got {values['title']!r}")
    for name in [*values.get("vary", {}), *_flat(values.get("settings", {}))]:
        _check_free(name)
    for name, choices in values.get("vary", {}).items():
        if not isinstance(choices, list | tuple) or not choices:
            raise InputError(f"study: vary {name!r}: expected a list of values, got {choices!r}")
    images = values.get("analysis_images", Plan.analysis_images)
    if type(images) is not int or images < 4:
        raise InputError(f"study: 'analysis_images': expected a whole number of at least 4, got {images!r}")
    converted["budget"] = _budget(values["budget"])
    plan = Plan(**converted)
    plan.cells()
    return plan


def _budget(values: Mapping[str, Any]) -> Budget:
    names = [field.name for field in dataclasses.fields(Budget)]
    for key in values:
        if key not in names:
            raise InputError(f"study: unknown key 'budget.{key}'{suggestion(key, names)}")
    rule: Any = values.get("rule")
    numbers = {key: value for key, value in values.items() if key != "rule"}
    if rule not in get_args(Rule):
        raise InputError(f"study: 'budget.rule': expected one of {', '.join(get_args(Rule))}, got {rule!r}")
    for key in ("amount", "max_epochs"):
        value = numbers.get(key, Budget.max_epochs if key == "max_epochs" else None)
        if type(value) not in (int, float) or not 0 < value < float("inf"):
            raise InputError(f"study: 'budget.{key}': expected a number above 0, got {value!r}")
    return Budget(rule, **{key: float(value) for key, value in numbers.items()})


def _check_free(name: str) -> None:
    """Raise an InputError for a setting that the lists of the file or the budget choose."""
    last = name.rpartition(".")[2]
    if name in ("epochs", "steps"):
        raise InputError(f"study: {name!r} follows from the budget; use 'budget.amount' or 'budget.max_epochs'")
    if name in OF_GRID or (last == "measure" and name.partition(".")[0] not in ("loss", "mining")):
        raise InputError(f"study: {name!r} is chosen by the list {OF_GRID[last]!r}; use that list")


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the dotted names of nested settings."""
    names = []
    for key, value in settings.items():
        names += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [f"{prefix}{key}"]
    return names


def _list(key: str, values: Any, kind: type) -> tuple[Any, ...]:
    if not isinstance(values, list | tuple) or not values or any(type(value) is not kind for value in values):
        what = "whole numbers" if kind is int else "names"
        raise InputError(f"study: {key!r}: expected a list of {what}, got {values!r}")
    return tuple(values)


def _set(values: dict[str, Any], name: str, value: Any) -> None:
    """Set a value of nested dictionaries by its dotted name."""
    *sections, last = name.split(".")
    for section in sections:
        values = values.setdefault(section, {})
    values[last] = value


def _pair(a: Cell, b: Cell) -> str:
    """Describe the difference of two cells with the same folder."""
    differing = [
        f"{field.name} {getattr(a, field.name)!r} and {getattr(b, field.name)!r}"
        for field in dataclasses.fields(Cell)
        if getattr(a, field.name) != getattr(b, field.name)
    ]
    return "; ".join(differing) or "the same values twice"
