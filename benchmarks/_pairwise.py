"""Whole matrices of every measure that SciPy's `cdist` or scikit-learn's `metrics.pairwise` has, too."""

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks._timing import CORES, OURS, Contest, Ready, compiled

Rows = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
KERNELS = {"rbf", "laplacian", "polynomial", "sigmoid", "chi2", "additive_chi2"}


def normal(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Normal numbers."""
    return random.standard_normal(shape).astype(np.float32)


def positive(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Numbers in (0, 1)."""
    return random.uniform(0.01, 1.0, shape).astype(np.float32)


def histograms(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Positive numbers with sum 1."""
    x = positive(random, shape)
    return x / x.sum(axis=1, keepdims=True)


def booleans(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """True in one place of three."""
    return random.random(shape) < 1 / 3


def gaps(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Normal numbers, one of ten missing (NaN)."""
    return np.where(random.random(shape) < 0.1, np.float32(np.nan), normal(random, shape))


def places(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Latitude and longitude in radians."""
    return random.uniform(-1.5, 1.5, (shape[0], 2)).astype(np.float32)


def variances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of each feature, over all rows."""
    return np.var(np.concatenate([x, y]), axis=0, ddof=1)


def inverse_covariance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of the features, over all rows."""
    return np.linalg.inv(np.cov(np.concatenate([x, y]).T)).astype(np.float32)


@dataclass(frozen=True)
class Peers:
    """What peers call a measure.

    Args:
        scipy: metric of `cdist`; scikit-learn runs it in jobs.
        sklearn: metric that scikit-learn has a function of its own for, with its options.
        torch: the module, x and y to the matrix.
        rows: what the measure is defined on.
        parameter: our name, SciPy's name, and the value given x and y.
    """

    scipy: str | None = None
    sklearn: tuple[str, dict[str, Any]] | None = None
    torch: Callable[[Any, Any, Any], Any] | None = None
    rows: Rows = normal
    parameter: tuple[str, str, Callable[..., Any]] | None = None


def _cosine_distance(torch: Any, x: Any, y: Any) -> Any:
    unit = torch.nn.functional.normalize
    return 1 - unit(x) @ unit(y).T


MEASURES = {
    "manhattan": Peers("cityblock", torch=lambda t, x, y: t.cdist(x, y, p=1.0)),
    "euclidean": Peers("euclidean", ("euclidean", {}), lambda t, x, y: t.cdist(x, y)),
    "squared_euclidean": Peers(
        "sqeuclidean", ("euclidean", {"squared": True}), lambda t, x, y: t.cdist(x, y).square_()
    ),
    "standardized_euclidean": Peers("seuclidean", parameter=("variance", "V", variances)),
    "mahalanobis": Peers("mahalanobis", parameter=("matrix", "VI", inverse_covariance)),
    "chebyshev": Peers("chebyshev", torch=lambda t, x, y: t.cdist(x, y, p=float("inf"))),
    "minkowski": Peers("minkowski", torch=lambda t, x, y: t.cdist(x, y, p=3.0), parameter=("p", "p", lambda x, y: 3.0)),
    "cosine_distance": Peers("cosine", ("cosine", {}), _cosine_distance),
    "correlation": Peers("correlation"),
    "canberra": Peers("canberra"),
    "bray_curtis": Peers("braycurtis", rows=positive),
    "jensen_shannon": Peers("jensenshannon", rows=histograms),
    "hamming": Peers("hamming", rows=booleans),
    "jaccard_distance": Peers("jaccard", rows=booleans),
    "dice_distance": Peers("dice", rows=booleans),
    "rogers_tanimoto": Peers("rogerstanimoto", rows=booleans),
    "russell_rao": Peers("russellrao", rows=booleans),
    "sokal_sneath": Peers("sokalsneath", rows=booleans),
    "yule": Peers("yule", rows=booleans),
    "haversine": Peers(sklearn=("haversine", {}), rows=places),
    "nan_euclidean": Peers(sklearn=("nan_euclidean", {}), rows=gaps),
    "rbf": Peers(sklearn=("rbf", {}), torch=lambda t, x, y: t.cdist(x, y).square_().div_(-x.shape[1]).exp_()),
    "laplacian": Peers(sklearn=("laplacian", {}), torch=lambda t, x, y: t.cdist(x, y, p=1.0).div_(-x.shape[1]).exp_()),
    "polynomial": Peers(sklearn=("polynomial", {}), torch=lambda t, x, y: (x @ y.T).div_(x.shape[1]).add_(1).pow_(3)),
    "sigmoid": Peers(sklearn=("sigmoid", {}), torch=lambda t, x, y: (x @ y.T).div_(x.shape[1]).add_(1).tanh_()),
    "chi2": Peers(sklearn=("chi2", {}), rows=histograms),
    "additive_chi2": Peers(sklearn=("additive_chi2", {}), rows=histograms),
}


def pairwise(measures: Iterable[str] | None, n: int, d: int) -> Iterator[Contest]:
    """One contest a measure: n rows against n others."""
    unknown = set(measures or ()) - set(MEASURES)
    if unknown:
        raise SystemExit(f"--measures: unknown {', '.join(sorted(unknown))}; valid: {', '.join(MEASURES)}")
    for name in measures or MEASURES:
        peers = MEASURES[name]
        size = f"{n:,} x {n:,} x {2 if peers.rows is places else d}"

        def inputs(peers: Peers = peers) -> tuple[Any, ...]:
            random = np.random.default_rng(0)
            x, y = peers.rows(random, (n, d)), peers.rows(random, (n, d))
            return x, y, peers.parameter[2](x, y) if peers.parameter else None

        yield Contest("pairwise", name, size, inputs, contenders(name, peers), "largest difference")


def contenders(name: str, peers: Peers) -> dict[str, Callable[..., Ready]]:
    """Those who have the measure; the most precise of the peers first."""

    def ours(x: np.ndarray, y: np.ndarray, value: Any) -> Ready:
        from simjax.similarity import measure, pairwise

        chosen = measure(name, **({peers.parameter[0]: value} if peers.parameter else {}))
        return compiled(lambda x, y: pairwise(x, y, chosen), x, y)

    def scipy_cdist(x: np.ndarray, y: np.ndarray, value: Any) -> Ready:
        from scipy.spatial.distance import cdist

        x, y = (a if a.dtype == bool else a.astype(np.float64) for a in (x, y))
        metric: Any = peers.scipy  # a name
        return Ready(lambda: cdist(x, y, metric, **keywords(value)))

    def sklearn_jobs(jobs: int) -> Callable[..., Ready]:
        def build(x: np.ndarray, y: np.ndarray, value: Any) -> Ready:
            from sklearn.metrics import pairwise as functions

            metric, more = peers.sklearn or (peers.scipy, keywords(value))
            function: Any = functions.pairwise_kernels if metric in KERNELS else functions.pairwise_distances
            return Ready(lambda: function(x, y, metric=metric, n_jobs=jobs, **more))

        return build

    def eager_torch(x: np.ndarray, y: np.ndarray, value: Any) -> Ready:
        import torch

        assert peers.torch is not None
        torch.set_num_threads(CORES)
        a, b = torch.from_numpy(x), torch.from_numpy(y)
        return Ready(functools.partial(peers.torch, torch, a, b))

    def keywords(value: Any) -> dict[str, Any]:
        return {peers.parameter[1]: value} if peers.parameter else {}

    found = {OURS: ours}
    if peers.scipy:
        found["SciPy"] = scipy_cdist
    if peers.sklearn:
        found["scikit-learn"] = sklearn_jobs(1)
    if CORES > 1 and peers.scipy != "jensenshannon":  # which scikit-learn does not know
        found[f"scikit-learn, {CORES} jobs"] = sklearn_jobs(CORES)
    if peers.torch:
        found["PyTorch"] = eager_torch
    return found
