"""NumPy arrays as arguments (unlike operations of `jax.numpy`, they compile nothing), and the memory of a program."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def float32(x: Any) -> np.ndarray:
    return np.asarray(x, np.float32)


def float64(x: Any) -> np.ndarray:
    return np.asarray(x, np.float64)


def temporary_bytes(function: Callable[..., Any], *arguments: Any) -> int:
    """Return the size of the intermediate arrays of a compiled function."""
    memory = jax.jit(function).lower(*arguments).compile().memory_analysis()
    assert memory is not None
    return memory.temp_size_in_bytes
