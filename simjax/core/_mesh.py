"""Arrays on a mesh of devices: Manual axes inside `jax.shard_map`, Explicit axes everywhere else.

Inside `jax.shard_map` the type of an array says over which axes its values vary, and a loop must return the types that
it starts with. On Explicit axes, the default of `jax.make_mesh`, the type says how an array is sharded, and JAX refuses
operations whose result could be sharded in several ways. XLA decides that itself where axes are Auto.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array


def varying_axes(a: Any) -> frozenset[str]:
    """Return the Manual mesh axes over which an array's values vary."""
    return jax.typeof(a).manual_axis_type.varying


def vary(values: Any, axes: frozenset[str]) -> Any:
    """Mark all arrays of a pytree as varying over mesh axes."""
    return jax.tree.map(lambda a: jax.lax.pcast(a, tuple(axes - varying_axes(a)), to="varying"), values)


def vary_alike(values: Any) -> Any:
    """Mark all arrays of a pytree as varying over the mesh axes over which any of them varies."""
    return vary(values, frozenset[str]().union(*map(varying_axes, jax.tree.leaves(values))))


def as_carry(step: Callable[[Any], Any], carry: Any) -> Any:
    """Mark the initial carry of a loop as varying over the mesh axes over which `step(carry)` varies."""
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return carry
    while True:
        found = jax.eval_shape(step, carry)
        grown = jax.tree.map(lambda a, after: vary(a, after.manual_axis_type.varying), carry, found)
        if jax.tree.map(varying_axes, grown) == jax.tree.map(varying_axes, carry):
            return carry
        carry = grown
