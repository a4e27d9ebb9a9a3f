"""Operations by formula are those of the traced program, and bound XLA's count from below."""

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.extend.core import ClosedJaxpr, Jaxpr

from simjax.core import InputError
from simjax.nn import DenseNetwork, IdentityNetwork, SiameseCNN, VisionTransformer
from simjax.study import forward_flops
from tests.slow import mostly_slow

MNIST, CIFAR10 = (28, 28, 1), (32, 32, 3)


def without_weights(network: Any, shape: tuple[int, int, int], **options: Any) -> Any:
    """Return a network whose weights have shapes only."""
    return nnx.eval_shape(lambda: network(shape, rngs=nnx.Rngs(0), **options))


def program(network: nnx.Module, shape: tuple[int, int, int]) -> tuple[Any, Any, Any]:
    """Return the network as a function of its weights and one image, and the shapes of both."""
    network = nnx.view(network, use_running_average=True, raise_if_not_found=False)
    graph, state = nnx.split(network)
    images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    return jax.jit(lambda state, images: nnx.merge(graph, state)(images)), state, images


def dot_products_of(jaxpr: Any) -> int:
    """Count the operations of all matrix products of a program, at any depth; it has no loops."""
    total = 0
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        assert name not in ("scan", "while", "cond", "conv_general_dilated")
        if name == "dot_general":
            contracted, _ = equation.params["dimension_numbers"][0]
            length = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
            total += 2 * length * math.prod(equation.outvars[0].aval.shape)
        inner = jax.tree.leaves(list(equation.params.values()), is_leaf=lambda p: isinstance(p, ClosedJaxpr | Jaxpr))
        total += sum(dot_products_of(p) for p in inner if isinstance(p, ClosedJaxpr | Jaxpr))
    return total


CASES = list(itertools.product((SiameseCNN, DenseNetwork, VisionTransformer), (MNIST, CIFAR10)))


@pytest.mark.parametrize(("network", "shape"), mostly_slow(CASES, *CASES[::2]))
def test_the_formula_counts_the_matrix_products_of_the_program(network, shape):
    network = without_weights(network, shape)
    function, *arguments = program(network, shape)
    assert forward_flops(network, shape) == dot_products_of(jax.make_jaxpr(function)(*arguments).jaxpr)


@pytest.mark.parametrize(("network", "shape"), mostly_slow(CASES, (DenseNetwork, MNIST)))
def test_xla_counts_elementwise_operations_in_addition(network, shape):
    network = without_weights(network, shape)
    function, *arguments = program(network, shape)
    of_xla = function.lower(*arguments).compile().cost_analysis()["flops"]
    assert 1 < of_xla / forward_flops(network, shape) < (1.15 if isinstance(network, VisionTransformer) else 1.05)


@pytest.mark.parametrize("options", [{"pooling": "class", "patch_size": 5}, {"depth": 2, "heads": 2, "mlp_ratio": 3}])
def test_options_of_the_transformer_count(options):
    network = without_weights(VisionTransformer, (11, 9, 2), **options)
    function, *arguments = program(network, (11, 9, 2))
    assert forward_flops(network, (11, 9, 2)) == dot_products_of(jax.make_jaxpr(function)(*arguments).jaxpr)


def test_the_classic_cnn_by_hand():
    network = without_weights(SiameseCNN, MNIST, variant="classic")
    convolutions = 28 * 28 * 9 * 32 + 14 * 14 * 9 * 32 * 64 + 5 * 5 * 9 * 64 * 128
    assert forward_flops(network, MNIST) == 2 * (convolutions + 128 * 64 + 64 * 2)


def test_the_identity_has_no_dot_products():
    assert forward_flops(without_weights(IdentityNetwork, MNIST), MNIST) == 0


def test_other_networks_and_layers_are_errors():
    network = without_weights(DenseNetwork, (2, 3, 1), widths=(5,))
    with pytest.raises(InputError, match="^network: expected a SiameseCNN, .*, got Sequential$"):
        forward_flops(network.layers, (2, 3, 1))
    network.layers = nnx.Sequential(nnx.LayerNorm(6, rngs=nnx.Rngs(0)))
    with pytest.raises(InputError, match="^network: expected layers of simjax.nn, got LayerNorm$"):
        forward_flops(network, (2, 3, 1))
