"""Grids of training runs with matched budgets, and comparisons of the trained networks."""

from simjax.study._analyze import analyze
from simjax.study._flops import forward_flops, training_flops
from simjax.study._plan import Budget, Cell, Plan, load_plan, plan_from_dict
from simjax.study._representations import INDICES, layer_similarity, shuffle_images
from simjax.study._run import CellState, begin_study, run_cells, seconds_left

__all__ = [
    "INDICES",
    "Budget",
    "Cell",
    "CellState",
    "Plan",
    "analyze",
    "begin_study",
    "forward_flops",
    "layer_similarity",
    "load_plan",
    "plan_from_dict",
    "run_cells",
    "seconds_left",
    "shuffle_images",
    "training_flops",
]
