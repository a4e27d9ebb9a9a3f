"""Values and gradients beside pytorch-metric-learning with its defaults, where it is installed (`.[bench]`)."""

import jax
import numpy as np
import pytest

from simjax import losses

theirs = pytest.importorskip("pytorch_metric_learning.losses", reason="pytorch-metric-learning is not installed")
torch = pytest.importorskip("torch")

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]

CASES = {
    "contrastive": lambda: theirs.ContrastiveLoss(),
    "triplet_margin": lambda: theirs.TripletMarginLoss(),
    "nt_xent": lambda: theirs.NTXentLoss(),
    "supervised_contrastive": lambda: theirs.SupConLoss(),
    "multi_similarity": lambda: theirs.MultiSimilarityLoss(),
    "circle": lambda: theirs.CircleLoss(),
    "nca": lambda: theirs.NCALoss(),
    "generalized_lifted_structure": lambda: theirs.GeneralizedLiftedStructureLoss(),
    "tuplet_margin": lambda: theirs.TupletMarginLoss(),
    "fast_ap": lambda: theirs.FastAPLoss(),
}

WITH_PROXIES = {  # our name: their loss, and its attribute with the proxies; those in "W" are columns
    "normalized_softmax": (lambda: theirs.NormalizedSoftmaxLoss(4, 7), "W"),
    "arcface": (lambda: theirs.ArcFaceLoss(4, 7), "W"),
    "cosface": (lambda: theirs.CosFaceLoss(4, 7), "W"),
    "proxy_nca": (lambda: theirs.ProxyNCALoss(4, 7), "proxies"),
    "proxy_anchor": (lambda: theirs.ProxyAnchorLoss(4, 7), "proxies"),
}


@pytest.mark.parametrize(
    ("name", "with_reference"),
    [*((name, False) for name in CASES), *((name, True) for name in ("contrastive", "circle", "triplet_margin"))],
)
def test_defaults_are_equal(random, name, with_reference):
    x, y = (np.float32(random.normal(size=(n, 7))) for n in (23, 17))
    labels, ref = random.permutation(23) % 4, random.permutation(17) % 4
    loss = getattr(losses, f"{name}_loss")

    def ours(x):
        options = {"ref_embeddings": y, "ref_labels": ref} if with_reference else {}
        return loss(x, labels, **options)

    value, gradient = jax.jit(jax.value_and_grad(ours))(x)
    leaf = torch.tensor(x, requires_grad=True)
    more = {"ref_emb": torch.tensor(y), "ref_labels": torch.tensor(ref)} if with_reference else {}
    expected = CASES[name]()(leaf, torch.tensor(labels), **more)
    expected.backward()
    assert leaf.grad is not None
    np.testing.assert_allclose(value, expected.item(), rtol=1e-4)
    np.testing.assert_allclose(gradient, leaf.grad.numpy(), rtol=1e-3, atol=1e-4 * np.abs(leaf.grad.numpy()).max())


@pytest.mark.parametrize("name", WITH_PROXIES)
def test_losses_of_proxies_are_equal(random, name):
    make, attribute = WITH_PROXIES[name]
    x, labels = np.float32(random.normal(size=(23, 7))), random.permutation(23) % 4
    module = make()
    vectors = getattr(module, attribute)
    proxies = vectors.detach().numpy().T if attribute == "W" else vectors.detach().numpy()
    loss = getattr(losses, f"{name}_loss")
    both = jax.value_and_grad(lambda x, p: loss(x, labels, proxies=p), argnums=(0, 1))
    value, gradients = jax.jit(both)(x, proxies)
    leaf = torch.tensor(x, requires_grad=True)
    expected = module(leaf, torch.tensor(labels))
    expected.backward()
    assert leaf.grad is not None
    of_proxies = vectors.grad.numpy().T if attribute == "W" else vectors.grad.numpy()
    np.testing.assert_allclose(value, expected.item(), rtol=1e-4)
    for found, wanted in zip(gradients, (leaf.grad.numpy(), of_proxies), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())


def test_vicreg_is_equal(random):
    x, y = (np.float32(random.normal(size=(23, 7))) for _ in range(2))
    expected = theirs.VICRegLoss()(torch.tensor(x), ref_emb=torch.tensor(y))
    np.testing.assert_allclose(losses.vicreg_loss(x, y), expected.item(), rtol=1e-5)
