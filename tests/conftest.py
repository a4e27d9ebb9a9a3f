"""Every test runs with strict JAX: shapes in annotations are checked, ranks are never promoted silently.

The number of compilations of a run is printed at its end: most of the suite's time is the compiler's.
"""

import collections
from pathlib import Path

from jaxtyping import install_import_hook

with install_import_hook("simjax", "beartype.beartype"):
    import simjax.attention
    import simjax.core
    import simjax.data
    import simjax.encoder
    import simjax.evaluate
    import simjax.explain
    import simjax.gallery
    import simjax.losses
    import simjax.mining
    import simjax.nn
    import simjax.pairs
    import simjax.similarity  # noqa: F401

import jax
import jaxtyping
import numpy as np
import pytest

jax.config.update("jax_num_cpu_devices", 4)

COMPILATION = "/jax/core/compile/backend_compile_duration"
compilations: collections.Counter[str] = collections.Counter()  # and their seconds


def count_compilation(event: str, duration_secs: float, **kwargs: str | int) -> None:
    if event == COMPILATION:
        compilations.update(number=1, milliseconds=round(1000 * duration_secs))


jax.monitoring.register_event_duration_secs_listener(count_compilation)


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):  # a worker of pytest-xdist
        session.config.workeroutput["compilations"] = dict(compilations)


def pytest_testnodedown(node, error):
    compilations.update(getattr(node, "workeroutput", {}).get("compilations", {}))


def pytest_terminal_summary(terminalreporter):
    seconds = compilations["milliseconds"] / 1000
    terminalreporter.write_line(f"{compilations['number']} compilations by XLA took {seconds:.0f} s")


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def unchecked():
    """Annotations are not checked, as for a user, so that the library's own errors are raised."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def compile_faster(request: pytest.FixtureRequest):
    """Compile the programs of a slow case without most optimizations; those of a fast one are as for a user."""
    jax.config.update("jax_disable_most_optimizations", request.node.get_closest_marker("slow") is not None)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


MOST_MAPS = 30_000  # of the 65,530 that Linux allows a process by default


@pytest.fixture(autouse=True, scope="module")
def limit_memory_maps():
    """Clear compiled functions before the process runs out of memory maps, which would crash the compiler."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > MOST_MAPS:
        jax.clear_caches()
