"""simjax: similarity learning in JAX.

A filter of a CNN, a neuron of a dense layer and a query of an attention head each compute a dot product, and so measure
similarity. simjax is the library and program in which that can be seen, changed, measured and used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simjax import (
        attention,
        classical,
        core,
        data,
        encoder,
        evaluate,
        explain,
        gallery,
        losses,
        mining,
        nn,
        pairs,
        report,
        similarity,
        study,
        train,
    )
    from simjax._compilation_cache import enable_compilation_cache
    from simjax.encoder import Encoder, load_encoder
    from simjax.gallery import Gallery

__version__ = "0.1.0"

__all__ = [
    "Encoder",
    "Gallery",
    "attention",
    "classical",
    "core",
    "data",
    "enable_compilation_cache",
    "encoder",
    "evaluate",
    "explain",
    "gallery",
    "load_encoder",
    "losses",
    "mining",
    "nn",
    "pairs",
    "report",
    "similarity",
    "study",
    "train",
]

MODULE_OF = {
    "Encoder": "simjax.encoder",
    "Gallery": "simjax.gallery",
    "enable_compilation_cache": "simjax._compilation_cache",
    "load_encoder": "simjax.encoder",
}


def __getattr__(name: str) -> Any:
    """Import a package, or a name of `MODULE_OF`, when it is first used."""
    if name in MODULE_OF:
        return getattr(importlib.import_module(MODULE_OF[name]), name)
    if name in __all__:
        return importlib.import_module(f"simjax.{name}")
    raise AttributeError(f"module 'simjax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
