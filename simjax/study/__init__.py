"""Grids of training runs with matched budgets, and comparisons of the trained networks."""

from simjax.study._analyze import analysis_parts, analyze
from simjax.study._corruptions import CORRUPTIONS, corrupt
from simjax.study._flops import forward_flops
from simjax.study._inside import look_inside
from simjax.study._plan import Budget, Cell, Plan, load_plan, plan_from_dict
from simjax.study._probes import linear_probes
from simjax.study._representations import INDICES, layer_similarity, shuffle_images
from simjax.study._run import CellState, begin_study, run_cells, seconds_left

__all__ = [
    "CORRUPTIONS",
    "INDICES",
    "Budget",
    "Cell",
    "CellState",
    "Plan",
    "analysis_parts",
    "analyze",
    "begin_study",
    "corrupt",
    "forward_flops",
    "layer_similarity",
    "linear_probes",
    "load_plan",
    "look_inside",
    "plan_from_dict",
    "run_cells",
    "seconds_left",
    "shuffle_images",
]
