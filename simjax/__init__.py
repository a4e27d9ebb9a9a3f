"""simjax: similarity learning in JAX.

A filter of a CNN, a neuron of a dense layer and a query of an attention head all take a dot product with something,
and so measure how similar it is to them. Here that can be seen, changed, measured and used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simjax import attention as attention
    from simjax import core as core
    from simjax import data as data
    from simjax import evaluate as evaluate
    from simjax import losses as losses
    from simjax import mining as mining
    from simjax import nn as nn
    from simjax import pairs as pairs
    from simjax import report as report
    from simjax import similarity as similarity
    from simjax import train as train

__version__ = "0.1.0"

ROOMS = ("attention", "core", "data", "evaluate", "losses", "mining", "nn", "pairs", "report", "similarity", "train")


def __getattr__(name: str) -> Any:
    """`simjax.similarity` and its sisters load when first used."""
    if name in ROOMS:
        return importlib.import_module(f"simjax.{name}")
    raise AttributeError(f"module 'simjax' has no attribute {name!r}")
