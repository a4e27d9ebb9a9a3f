"""Every test runs with strict JAX: shapes in annotations are checked, ranks are never promoted silently."""

from jaxtyping import install_import_hook

with install_import_hook("simjax", "beartype.beartype"):
    import simjax.attention
    import simjax.core
    import simjax.data
    import simjax.evaluate
    import simjax.losses
    import simjax.mining
    import simjax.nn
    import simjax.similarity  # noqa: F401

import jax
import jaxtyping
import numpy as np
import pytest

jax.config.update("jax_num_cpu_devices", 2)


@pytest.fixture(autouse=True, scope="module")
def compiled_quickly(request):
    """Hundreds of small functions are compiled and run once: there most of the time is the compiler's.

    For a module as a whole, so that its own fixtures compile as its tests do: other optimisations give other last bits.
    """
    rooms = ("attention", "core", "data", "evaluate", "losses", "mining", "nn", "similarity")
    quick = request.path.parent.name in rooms
    jax.config.update("jax_disable_most_optimizations", quick)


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def unchecked():
    """What a user meets: annotations are not checked, so that the library's own errors speak."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
