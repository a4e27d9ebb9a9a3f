"""Every test runs with strict JAX: shapes in annotations are checked, ranks are never promoted silently."""

import os
from pathlib import Path

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

jax.config.update("jax_num_cpu_devices", 4)
# Thousands of small functions are compiled and run once: most of the time is the compiler's, which without most
# optimisations and with XLA's former code generator takes much less. All of a process compiles alike, as other
# machine code gives other last bits. What tests start as processes is compiled as for a user: flags are read once.
jax.config.update("jax_disable_most_optimizations", True)
flags = os.environ.get("XLA_FLAGS")
os.environ["XLA_FLAGS"] = f"{flags or ''} --xla_cpu_use_fusion_emitters=false"
jax.devices()
if flags is None:
    del os.environ["XLA_FLAGS"]
else:
    os.environ["XLA_FLAGS"] = flags


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def unchecked():
    """What a user meets: annotations are not checked, so that the library's own errors speak."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


MOST_MAPS = 30_000  # of the 65,530 that Linux allows a process by default


@pytest.fixture(autouse=True, scope="module")
def few_memory_maps():
    """Every compiled function takes memory maps of the process, and without any left the compiler crashes."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > MOST_MAPS:
        jax.clear_caches()
