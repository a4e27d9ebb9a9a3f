"""Training: settings -> data -> objective -> step -> loop -> evaluation.

`train(settings, out)` does all of it. `Settings` describes a run; `from_dict` and `load_toml` make settings from values
and files.
"""

from typing import TYPE_CHECKING, Any

from simjax.train._settings import Settings, from_dict, load_toml, to_dict

if TYPE_CHECKING:
    from simjax.train._loop import Interrupted
    from simjax.train._train import TrainResult, train

__all__ = ["Interrupted", "Settings", "TrainResult", "from_dict", "load_toml", "to_dict", "train"]


def __getattr__(name: str) -> Any:
    """Import names that need Flax and Optax on first use, so that `--help` is fast."""
    if name == "Interrupted":
        from simjax.train._loop import Interrupted

        return Interrupted
    if name in ("TrainResult", "train"):
        from simjax.train import _train

        return getattr(_train, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
