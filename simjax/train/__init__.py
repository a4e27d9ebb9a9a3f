"""Training: settings, state, step, loop, checkpoints, and the evaluation that ends a run."""

from typing import TYPE_CHECKING, Any

from simjax.train._settings import Settings, from_dict

if TYPE_CHECKING:
    from simjax.train._loop import Interrupted
    from simjax.train._train import train

__all__ = ["Interrupted", "Settings", "from_dict", "train"]


def __getattr__(name: str) -> Any:
    """Import `train` and `Interrupted` when first used: the command line's help needs only the settings."""
    if name == "train":
        from simjax.train._train import train

        return train
    if name == "Interrupted":
        from simjax.train._loop import Interrupted

        return Interrupted
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
