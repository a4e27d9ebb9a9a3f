"""Losses of ranks, histograms and tuples beside pytorch-metric-learning, where it is installed (`.[bench]`)."""

import jax
import numpy as np
import pytest

from simjax import losses

theirs = pytest.importorskip("pytorch_metric_learning.losses", reason="pytorch-metric-learning is not installed")
torch = pytest.importorskip("torch")

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]

CASES = {
    "ranked_list": ({}, lambda: theirs.RankedListLoss(margin=0.4, Tn=10)),
    "ranked_list, warm": (
        {"margin": 0.3, "alpha": 1.4, "imbalance": 0.3, "positive_temperature": 2.0, "negative_temperature": 1.0},
        lambda: theirs.RankedListLoss(margin=0.3, alpha=1.4, imbalance=0.3, Tp=2.0, Tn=1.0),
    ),
    "histogram": ({}, lambda: theirs.HistogramLoss()),
    "angular": ({}, lambda: theirs.AngularLoss()),
    "pnp": ({}, lambda: theirs.PNPLoss()),
    "pnp, Dq": ({"variant": "Dq", "alpha": 2.0}, lambda: theirs.PNPLoss(variant="Dq", alpha=2)),
    "smooth_ap": ({}, lambda: theirs.SmoothAPLoss()),
}


def of_ours(name, x, labels, **options):
    loss = getattr(losses, f"{name.split(',')[0]}_loss")
    return jax.jit(jax.value_and_grad(lambda x: loss(x, labels, **options)))(x)


def of_theirs(loss, x, labels, **options):
    leaf = torch.tensor(x, requires_grad=True)
    # At unit length, where their angular loss is one of angles; the others divide by the length themselves.
    value = loss(torch.nn.functional.normalize(leaf), torch.tensor(labels), **options)
    value.backward()
    assert leaf.grad is not None
    return value.item(), leaf.grad.numpy()


def check(ours, expected):
    np.testing.assert_allclose(ours[0], expected[0], rtol=1e-4)
    np.testing.assert_allclose(ours[1], expected[1], rtol=1e-3, atol=2e-4 * np.abs(expected[1]).max())


@pytest.mark.parametrize("name", CASES)
def test_the_same(random, name):
    x = np.float32(random.normal(size=(25, 7)))
    labels = np.arange(25) // 5  # as many classes as rows in each, in order: so theirs of smooth_ap needs it
    options, make = CASES[name]
    check(of_ours(name, x, labels, **options), of_theirs(make(), x, labels))


def test_angular_with_reference(random):
    x, y = (np.float32(random.normal(size=(n, 7))) for n in (23, 17))
    labels, ref = random.permutation(23) % 4, random.permutation(17) % 4
    ours = of_ours("angular", x, labels, ref_embeddings=y, ref_labels=ref)
    other = {"ref_emb": torch.nn.functional.normalize(torch.tensor(y)), "ref_labels": torch.tensor(ref)}
    check(ours, of_theirs(theirs.AngularLoss(), x, labels, **other))


@pytest.mark.parametrize("with_reference", [False, True])
def test_the_first_dynamic_soft_margin(random, with_reference):
    """Value and histogram; their gradient flows through the histogram."""
    x, y = (np.float32(random.normal(size=(n, 7))) for n in (23, 17))
    labels, ref = random.permutation(23) % 4, random.permutation(17) % 4
    ours = {"ref_embeddings": y, "ref_labels": ref} if with_reference else {}
    other = {"ref_emb": torch.tensor(y), "ref_labels": torch.tensor(ref)} if with_reference else {}
    module = theirs.DynamicSoftMarginLoss()
    expected = module(torch.tensor(x), torch.tensor(labels), **other).item()
    np.testing.assert_allclose(losses.dynamic_soft_margin_loss(x, labels, **ours), expected, rtol=1e-4)
    found = losses.dynamic_soft_margin_histogram(x, labels, **ours)
    np.testing.assert_allclose(found, module.hist_.numpy(), rtol=1e-4, atol=1e-6)
