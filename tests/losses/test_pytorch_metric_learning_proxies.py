"""Proxy losses and regularizers are equal to those of pytorch-metric-learning (`.[bench]`)."""

import jax
import numpy as np
import pytest

from simjax import losses

theirs = pytest.importorskip("pytorch_metric_learning.losses", reason="pytorch-metric-learning is not installed")
regularizers = pytest.importorskip("pytorch_metric_learning.regularizers")
torch = pytest.importorskip("torch")

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]
N, C, K, D = 23, 4, 3, 7

WITH_PROXIES = {  # their loss, its attribute with proxies as columns, and the shape of our proxies
    "sub_center_arcface": (lambda: theirs.SubCenterArcFaceLoss(num_classes=C, embedding_size=D), "W", (C, K, D)),
    "large_margin_softmax": (lambda: theirs.LargeMarginSoftmaxLoss(C, D), "W", (C, D)),
    "sphereface": (lambda: theirs.SphereFaceLoss(C, D), "W", (C, D)),
    "soft_triple": (lambda: theirs.SoftTripleLoss(C, D, centers_per_class=K), "fc", (C, K, D)),
}


def batch(random):
    return np.float32(random.normal(size=(N, D))), random.permutation(N) % C


def assert_the_same(ours, arguments, value, leaves):
    found, gradients = jax.jit(jax.value_and_grad(ours, argnums=tuple(range(len(arguments)))))(*arguments)
    value.backward()
    np.testing.assert_allclose(found, value.item(), rtol=1e-4)
    for gradient, leaf in zip(gradients, leaves, strict=True):
        wanted = leaf.grad.numpy()
        wanted = wanted.T.reshape(gradient.shape) if wanted.shape != (N, D) else wanted
        np.testing.assert_allclose(gradient, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("name", WITH_PROXIES)
def test_defaults_are_equal(random, name):
    make, attribute, shape = WITH_PROXIES[name]
    (x, labels), module = batch(random), make()
    vectors, leaf = getattr(module, attribute), torch.tensor(x, requires_grad=True)
    expected = module(leaf, torch.tensor(labels))
    proxies = vectors.detach().numpy().T.reshape(shape)
    loss = getattr(losses, f"{name}_loss")
    assert_the_same(lambda x, p: loss(x, labels, proxies=p), (x, proxies), expected, (leaf, vectors))


def test_p2s_grad_is_equal_except_for_the_gradient_along_proxies(random):
    """pytorch-metric-learning scales proxies to unit length in place, so its gradient has a part along them."""
    x, labels = batch(random)
    module, leaf = theirs.P2SGradLoss(D, C), torch.tensor(x, requires_grad=True)
    expected = module(leaf, torch.tensor(labels))
    proxies = module.weight.detach().numpy().T
    both = jax.value_and_grad(lambda x, p: losses.p2s_grad_loss(x, labels, proxies=p), argnums=(0, 1))
    value, (of_x, of_proxies) = jax.jit(both)(x, proxies)
    expected.backward()
    orthogonal = module.weight.grad.numpy().T
    orthogonal -= np.sum(orthogonal * proxies, axis=1, keepdims=True) * proxies
    np.testing.assert_allclose(value, expected.item(), rtol=1e-5)
    np.testing.assert_allclose(of_x, leaf.grad.numpy(), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(of_proxies, orthogonal, rtol=1e-3, atol=1e-6)


def test_soft_triple_with_a_regularizer_is_equal(random):
    x, labels = batch(random)
    module = theirs.SoftTripleLoss(
        C,
        D,
        centers_per_class=K,
        weight_regularizer=regularizers.SparseCentersRegularizer(C, K),
        weight_reg_weight=0.2,
    )
    leaf = torch.tensor(x, requires_grad=True)
    expected = module(leaf, torch.tensor(labels))
    proxies = module.fc.detach().numpy().T.reshape(C, K, D)
    assert_the_same(
        lambda x, p: losses.soft_triple_loss(x, labels, proxies=p, tau=0.2), (x, proxies), expected, (leaf, module.fc)
    )


def test_outliers_are_equal(random):
    module = theirs.SubCenterArcFaceLoss(num_classes=C, embedding_size=D)
    x, labels = batch(random)
    expected, dominant = module.get_outliers(torch.tensor(x), torch.tensor(labels), threshold=65)
    found = losses.sub_center_outliers(
        x, labels, proxies=module.W.detach().numpy().T.reshape(C, K, D), threshold=65.0, block_size=5
    )
    assert 0 < len(expected) < N
    np.testing.assert_array_equal(np.flatnonzero(found.outlier), np.sort(expected.numpy()))
    np.testing.assert_allclose(found.proxies, dominant.numpy().T)


REGULARIZERS = {
    "center_invariant": (lambda: regularizers.CenterInvariantRegularizer(), {}),
    "lp": (lambda: regularizers.LpRegularizer(), {}),
    "lp, squared": (lambda: regularizers.LpRegularizer(p=3, power=2), {"p": 3, "power": 2}),
    "regular_face": (lambda: regularizers.RegularFaceRegularizer(), {}),
    "zero_mean": (lambda: regularizers.ZeroMeanRegularizer(), {}),
}


@pytest.mark.parametrize("name", REGULARIZERS)
def test_regularizers_are_equal(random, name):
    make, options = REGULARIZERS[name]
    x = np.float32(random.normal(size=(N, D)))
    leaf = torch.tensor(x, requires_grad=True)
    ours = getattr(losses, f"{name.split(',')[0]}_regularizer")
    assert_the_same(lambda x: ours(x, **options), (x,), make()(leaf), (leaf,))


def test_sparse_centers_regularizer_is_equal(random):
    centers = np.float32(random.normal(size=(C, K, D)))
    leaf = torch.tensor(centers.reshape(C * K, D), requires_grad=True)
    expected = regularizers.SparseCentersRegularizer(C, K)(leaf)
    expected.backward()
    value, gradient = jax.jit(jax.value_and_grad(losses.sparse_centers_regularizer))(centers)
    np.testing.assert_allclose(value, expected.item(), rtol=1e-5)
    np.testing.assert_allclose(gradient.reshape(C * K, D), leaf.grad.numpy(), rtol=1e-3, atol=1e-6)
