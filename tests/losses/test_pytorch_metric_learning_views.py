"""Losses of two views and combined losses are equal to those of pytorch-metric-learning (`.[bench]`)."""

import jax
import numpy as np
import pytest

from simjax import losses

theirs = pytest.importorskip("pytorch_metric_learning.losses", reason="pytorch-metric-learning is not installed")
torch = pytest.importorskip("torch")

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]

CASES = {
    "nt_xent": lambda: theirs.NTXentLoss(),
    "contrastive": lambda: theirs.ContrastiveLoss(),
    "triplet_margin": lambda: theirs.TripletMarginLoss(),
}


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_pair_losses_of_two_views_are_equal(random, name, symmetric):
    views = [np.float32(random.normal(size=(13, 7))) for _ in range(2)]
    loss = getattr(losses, f"{name}_loss")

    def ours(x, y):
        return losses.self_supervised_loss(loss, x, y, symmetric=symmetric)

    value, gradients = jax.jit(jax.value_and_grad(ours, argnums=(0, 1)))(*views)
    leaves = [torch.tensor(view, requires_grad=True) for view in views]
    expected = theirs.SelfSupervisedLoss(CASES[name](), symmetric=symmetric)(*leaves)
    expected.backward()
    np.testing.assert_allclose(value, expected.item(), rtol=1e-4)
    for found, leaf in zip(gradients, leaves, strict=True):
        assert leaf.grad is not None
        wanted = leaf.grad.numpy()
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())


def test_combined_losses_are_equal(random):
    x, labels = np.float32(random.normal(size=(23, 7))), random.permutation(23) % 4
    names, weights = ("nt_xent", "contrastive"), {"nt_xent": 0.3, "contrastive": 2.0}
    total, parts = losses.combined_loss(
        {name: getattr(losses, f"{name}_loss") for name in names}, x, labels, loss_weights=weights
    )
    both = theirs.MultipleLosses({name: CASES[name]() for name in names}, weights=weights)
    np.testing.assert_allclose(total, both(torch.tensor(x), torch.tensor(labels)).item(), rtol=1e-4)
    for name, part in parts.items():
        np.testing.assert_allclose(part, CASES[name]()(torch.tensor(x), torch.tensor(labels)).item(), rtol=1e-4)
