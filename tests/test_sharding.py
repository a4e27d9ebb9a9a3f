"""Every public array function gives the same values and gradients on a mesh of devices as on one device.

`public_functions` has a case for every public name, so that a new function without a case fails.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from simjax import attention, losses, mining, similarity
from tests.public_functions import CASES, NO_ARRAYS, batch
from tests.slow import mostly_slow

ROWS = {"x", "y", "labels", "grades", "scores", "tokens", "query", "key", "value", "lengths"}
FAST = ("losses.cosent_loss",)

pytestmark = pytest.mark.usefixtures("compile_faster")  # the partition over devices, tested here, is the same


def test_every_public_function_has_a_case():
    packages = {"similarity": similarity, "attention": attention, "losses": losses, "mining": mining}
    public = {f"{package}.{name}" for package, module in packages.items() for name in module.__all__}
    assert set(CASES) == public - set(NO_ARRAYS)


@pytest.mark.parametrize("name", mostly_slow(CASES, *FAST))
def test_value_and_gradient_are_those_of_one_device(name):
    case, b = CASES[name], batch()
    expected = jax.jit(differentiated(case))
    parts = [{n: np.split(a, 4)[k] if n in ROWS else a for n, a in b.items()} for k in range(4)]
    of_all, of_parts = expected(b), joined([expected(part) for part in parts])
    ways = {
        "Auto axes": (on_mesh(AxisType.Auto), 4, of_all),
        "Explicit axes": (on_mesh(AxisType.Explicit), 2, of_all),
        "all rows in shard_map": (gathered, 4, of_all),
        "own rows in shard_map": (own_rows, 4, of_parts),
    }
    for way, (run, devices, wanted) in ways.items():
        found = run(case, b, devices)
        assert jax.tree.structure(found) == jax.tree.structure(wanted), way
        for f, w in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
            f, w = np.asarray(f, np.float64), np.asarray(w, np.float64)
            size = np.abs(w, where=np.isfinite(w), out=np.zeros_like(w)).max()
            np.testing.assert_allclose(f, w, rtol=1e-5, atol=1e-5 * max(size, 1), err_msg=way)


@pytest.mark.parametrize("name", mostly_slow(CASES, *FAST))
def test_explicit_axes_may_have_all_labels_on_each_device(name):
    """Shardings that do not fit are found without compiling."""
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        b = batch()
        jax.eval_shape(differentiated(CASES[name]), placed(b, mesh, sharded(b, 4)))


def is_float(a):
    return jnp.issubdtype(a.dtype, jnp.floating)


def total(values):
    """Return a weighted sum of all finite floating-point values."""

    def weighted(a):
        a = jnp.where(jnp.isfinite(a), a, 0)
        return jnp.sum(a * jnp.cos(jnp.arange(a.size, dtype=a.dtype)).reshape(a.shape))

    return sum((weighted(a) for a in values if is_float(a)), jnp.zeros(()))


def differentiated(case, average=lambda loss: loss):
    """Return a function of the batch that gives the gradient of the total and the values of a case."""

    def call(b):
        def of_floats(floats):
            values = [jnp.asarray(a) for a in jax.tree.leaves(case(b | floats))]
            return average(total(values)), values

        return jax.grad(of_floats, has_aux=True)({n: a for n, a in b.items() if is_float(a)})

    return call


def joined(parts):
    """Return the gradient of the mean of the totals of all devices, and the values of all devices."""
    gradients = {n: [gradient[n] for gradient, _ in parts] for n in parts[0][0]}
    gradient = {n: (np.concatenate(g) if n in ROWS else np.sum(g, axis=0)) / len(g) for n, g in gradients.items()}
    return gradient, [np.stack(values) for values in zip(*(values for _, values in parts), strict=True)]


def placed(b, mesh, specs):
    return {n: jax.device_put(a, NamedSharding(mesh, specs[n])) for n, a in b.items()}


def sharded(b, devices):
    """Shard all arrays over 2 devices; of 4 devices each holds all labels."""
    return {n: P("data") if is_float(a) or devices == 2 else P() for n, a in b.items()}


def on_mesh(kind):
    def run(case, b, devices):
        mesh = jax.make_mesh((devices,), ("data",), axis_types=(kind,))
        with jax.set_mesh(mesh):
            return jax.jit(differentiated(case))(placed(b, mesh, sharded(b, devices)))

    return run


def gathered(case, b, devices):
    """Each device computes the loss of all rows; differentiated outside of `jax.shard_map`."""
    mesh = jax.make_mesh((devices,), ("data",))
    specs = sharded(b, devices)

    def local(b):
        b = {n: jax.lax.all_gather(a, "data", tiled=True) if specs[n] == P("data") else a for n, a in b.items()}
        values = jax.tree.leaves(case(b))
        return jax.tree.map(lambda a: jax.lax.pmean(1.0 * a, "data"), (total(values), values))

    def loss(floats, rest):
        return jax.shard_map(local, mesh=mesh, in_specs=(specs,), out_specs=P())(floats | rest)

    b = placed(b, mesh, specs)
    floats, rest = ({n: a for n, a in b.items() if is_float(a) == kind} for kind in (True, False))
    return jax.jit(jax.grad(loss, has_aux=True))(floats, rest)


def own_rows(case, b, devices):
    """Each device computes the loss of its rows with replicated references; differentiated inside `jax.shard_map`."""
    mesh = jax.make_mesh((devices,), ("data",))
    specs = {n: P("data") if n in ROWS else P() for n in b}

    def local(b):
        gradient, values = differentiated(case, lambda loss: jax.lax.pmean(loss, "data"))(b)
        return gradient, [jax.lax.all_gather(a[None], "data", tiled=True, to="invarying") for a in values]

    out_specs = {n: specs[n] for n, a in b.items() if is_float(a)}, P()
    return jax.jit(jax.shard_map(local, mesh=mesh, in_specs=(specs,), out_specs=out_specs))(placed(b, mesh, specs))
