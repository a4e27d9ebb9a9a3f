"""Values and gradients beside pytorch-metric-learning with its defaults, where it is installed (`.[bench]`)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simjax import losses

theirs = pytest.importorskip("pytorch_metric_learning.losses", reason="pytorch-metric-learning is not installed")
regularizers = pytest.importorskip("pytorch_metric_learning.regularizers")
torch = pytest.importorskip("torch")

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]

CASES = {
    "lifted_structure": lambda: theirs.LiftedStructureLoss(),
    "n_pairs": lambda: theirs.NPairsLoss(),
    "margin": lambda: theirs.MarginLoss(),
    "intra_pair_variance": lambda: theirs.IntraPairVarianceLoss(),
    "signal_to_noise_contrastive": lambda: theirs.SignalToNoiseRatioContrastiveLoss(),
    "threshold_consistent_margin": lambda: theirs.ThresholdConsistentMarginLoss(),
    "instance": lambda: theirs.InstanceLoss(),
}
WITH_REFERENCE = ("margin", "intra_pair_variance", "signal_to_noise_contrastive")  # elsewhere none, or the wrong rows


def assert_the_same(ours, module, x, labels, **more):
    """Value and gradient of ours(x), and of a module of theirs."""
    value, gradient = jax.jit(jax.value_and_grad(ours))(x)
    leaf = torch.tensor(x, requires_grad=True)
    expected = module(leaf, None if labels is None else torch.tensor(labels), **more)
    expected.backward()
    assert leaf.grad is not None
    np.testing.assert_allclose(value, expected.item(), rtol=1e-4)
    np.testing.assert_allclose(gradient, leaf.grad.numpy(), rtol=1e-3, atol=1e-4 * np.abs(leaf.grad.numpy()).max())


@pytest.mark.parametrize(
    ("name", "with_reference"), [*((name, False) for name in CASES), *((name, True) for name in WITH_REFERENCE)]
)
def test_the_same_by_default(random, name, with_reference):
    x, y = (np.float32(random.normal(size=(n, 7))) for n in (23, 17))
    labels, ref = random.permutation(23) % 4, random.permutation(17) % 4
    if name == "instance":
        x, labels = x / 5 + 1, np.arange(23)  # every row a class; near each other, or nothing is lost
    options = {"ref_embeddings": y, "ref_labels": ref} if with_reference else {}
    more = {"ref_emb": torch.tensor(y), "ref_labels": torch.tensor(ref)} if with_reference else {}
    loss = getattr(losses, f"{name}_loss")
    assert_the_same(lambda x: loss(x, labels, **options), CASES[name](), x, labels, **more)


def test_the_same_with_boundaries_that_are_learned(random):
    x, labels = np.float32(random.normal(size=(23, 7))), random.permutation(23) % 4
    for classes, nu in ((None, 0.3), (4, 0.0)):
        module = theirs.MarginLoss(learn_beta=True, num_classes=classes, nu=nu)
        beta = jnp.asarray(module.beta.detach().numpy())
        beta = beta if classes else beta[0]

        def ours(x, beta, nu=nu):
            return losses.margin_loss(x, labels, beta=beta, nu=nu)

        assert_the_same(lambda x, beta=beta, ours=ours: ours(x, beta), module, x, labels)
        np.testing.assert_allclose(
            np.atleast_1d(jax.jit(jax.grad(ours, argnums=1))(x, beta)), module.beta.grad.numpy(), rtol=1e-3, atol=1e-6
        )


def test_the_same_with_a_mean_of_zero(random):
    x, labels = np.float32(random.normal(size=(23, 7))), random.permutation(23) % 4
    module = theirs.SignalToNoiseRatioContrastiveLoss(
        embedding_regularizer=regularizers.ZeroMeanRegularizer(), embedding_reg_weight=0.3
    )
    assert_the_same(lambda x: losses.signal_to_noise_contrastive_loss(x, labels, zero_mean=0.3), module, x, labels)


def test_the_manifold_is_the_same(random):
    x, ids = np.float32(random.normal(size=(23, 7))), random.permutation(23) % 5
    module = theirs.ManifoldLoss(l=7, K=5)
    proxies = module.proxies.detach().numpy()
    assert_the_same(
        lambda x: losses.manifold_loss(x, ids, proxies=proxies), module, x, None, indices_tuple=torch.tensor(ids)
    )
    of_proxies = jax.jit(jax.grad(lambda proxies: losses.manifold_loss(x, ids, proxies=proxies)))(proxies)
    expected = module.proxies.grad.numpy()
    np.testing.assert_allclose(of_proxies, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
