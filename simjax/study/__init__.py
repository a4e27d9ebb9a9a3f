"""Grids of training runs with matched budgets, and comparisons of the trained networks."""

from simjax.study._analyze import analyze
from simjax.study._plan import Budget, Cell, Plan, load_plan, plan_from_dict
from simjax.study._run import CellState, begin_study, run_cells, seconds_left

__all__ = [
    "Budget",
    "Cell",
    "CellState",
    "Plan",
    "analyze",
    "begin_study",
    "load_plan",
    "plan_from_dict",
    "run_cells",
    "seconds_left",
]
