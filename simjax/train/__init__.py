"""Training: settings, state, step, loop, checkpoints, and the evaluation that ends a run."""

from typing import TYPE_CHECKING, Any

from simjax.train._settings import Settings as Settings
from simjax.train._settings import from_dict as from_dict

if TYPE_CHECKING:
    from simjax.train._loop import Interrupted as Interrupted
    from simjax.train._train import train as train


def __getattr__(name: str) -> Any:
    """`train` and `Interrupted` load when first used: the command line's help needs the settings alone."""
    if name == "train":
        from simjax.train._train import train

        return train
    if name == "Interrupted":
        from simjax.train._loop import Interrupted

        return Interrupted
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
