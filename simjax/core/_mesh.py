"""Arrays on a mesh of devices: Manual axes inside `jax.shard_map`, Explicit axes everywhere else.

Inside `jax.shard_map` the type of an array says over which mesh axes its values vary, and the carry of a loop must keep
its type. On Explicit axes, the default of `jax.make_mesh`, the type says how an array is sharded, and JAX refuses
operations whose result could be sharded in several ways. On Auto axes XLA decides how results are sharded.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec


def varying_axes(a: Any) -> frozenset[str]:
    """Return the Manual mesh axes over which an array's values vary."""
    return jax.typeof(a).manual_axis_type.varying


def vary(values: Any, axes: frozenset[str]) -> Any:
    """Mark all arrays of a pytree as varying over mesh axes."""
    return jax.tree.map(lambda a: jax.lax.pcast(a, tuple(axes - varying_axes(a)), to="varying"), values)


def vary_over_same_axes(values: Any) -> Any:
    """Mark all arrays of a pytree as varying over the mesh axes over which any of them varies."""
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return values
    return vary(values, frozenset[str]().union(*map(varying_axes, jax.tree.leaves(values))))


def as_carry(step: Callable[[Any], Any], carry: Any) -> Any:
    """Mark the initial carry of a loop as varying over the mesh axes over which `step(carry)` varies."""
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return carry
    while True:
        out = jax.eval_shape(step, carry)
        varying = jax.tree.map(lambda a, after: vary(a, after.manual_axis_type.varying), carry, out)
        if jax.tree.map(varying_axes, varying) == jax.tree.map(varying_axes, carry):
            return carry
        carry = varying


def explicit_mesh(*arrays: Array) -> Any:
    """Return the mesh over whose Explicit axes one of the arrays is sharded, or None."""
    for a in arrays:
        sharding = jax.typeof(a).sharding
        if sharding.mesh.are_all_axes_explicit and any(sharding.spec):
            return sharding.mesh
    return None


def replicated(values: Any) -> Any:
    """Replicate all arrays of a pytree that are sharded over Explicit mesh axes."""
    if explicit_mesh(*jax.tree.leaves(values)) is None:
        return values

    def replicate(a: Array) -> Array:
        mesh = explicit_mesh(a)
        return a if mesh is None else jax.reshard(a, NamedSharding(mesh, PartitionSpec()))

    return jax.tree.map(replicate, values)


def shard_second_axis(a: Array, like: Array) -> Array:
    """Shard the second axis of a over the Explicit mesh axes of the first axis of `like`, if they divide its size."""
    mesh = explicit_mesh(like)
    axes = mesh and jax.typeof(like).sharding.spec[0]
    if not axes or a.shape[1] % math.prod(mesh.shape[axis] for axis in ([axes] if isinstance(axes, str) else axes)):
        return a
    return jax.reshard(a, NamedSharding(mesh, PartitionSpec(None, axes)))


def call_on_devices(
    function: Callable[..., Any], mesh: Any, specs: tuple[Any, ...], out_specs: Any, *arguments: Any
) -> Any:
    """Call a function inside `jax.shard_map` on a mesh with Explicit axes.

    Args:
        function: Takes the part of the arguments on one device.
        mesh: Mesh of the arguments.
        specs: Shardings of the arguments, a pytree prefix of `arguments`. Arguments are resharded before the call.
        out_specs: Shardings of the results, a pytree prefix of the results.
        *arguments: Pytrees of arrays.
    """

    def place(spec: PartitionSpec, part: Any) -> Any:
        return jax.tree.map(lambda a: jax.reshard(a, NamedSharding(mesh, spec)), part)

    placed = jax.tree.map(place, specs, arguments)
    return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=out_specs)(*placed)


def auto_axes(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with Auto instead of Explicit mesh axes: XLA shards intermediates, results are replicated.

    The arguments are pytrees. The function must not close over arrays that are sharded over Explicit axes.
    """

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        leaves, tree = jax.tree.flatten((args, kwargs))
        arrays = {i: leaf for i, leaf in enumerate(leaves) if isinstance(leaf, Array)}
        mesh = explicit_mesh(*arrays.values())
        if mesh is None:
            return function(*args, **kwargs)

        def call(arrays: dict[int, Array]) -> Any:
            args, kwargs = tree.unflatten([arrays.get(i, leaf) for i, leaf in enumerate(leaves)])
            return function(*args, **kwargs)

        return jax.sharding.auto_axes(call, out_sharding=NamedSharding(mesh, PartitionSpec()))(arrays)

    return wrapped


@auto_axes
def take_rows(a: Array, rows: Array) -> Array:
    """Return `a[rows]`. Either array may be sharded over Explicit mesh axes."""
    return a[rows]
