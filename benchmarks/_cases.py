"""What is timed, and who takes part. Each contender loads its library when it is made ready.

Peers get their inputs as they like them best: SciPy in float64, in which it computes; PyTorch and FAISS as their own
tensors and index, made before the clock starts.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks._pairwise import pairwise
from benchmarks._timing import CORES, OURS, Contest, Ready, compiled, require_memory
from simjax import similarity

Arrays = tuple[np.ndarray, ...]


def contests(cases: Any, measures: Any = None, *, small: bool = False) -> Iterator[Contest]:
    """Every contest of the cases, in order."""
    makers = {
        "pairwise": lambda: pairwise(measures, *((1_000, 16) if small else (5_000, 128))),
        "search": lambda: search(*((200, 2_000, 16) if small else (10_000, 60_000, 128))),
        "attention": lambda: [
            attention("long", *((1, 128, 2, 16) if small else (1, 8_192, 8, 64))),
            attention("many", *((4, 49, 2, 16) if small else (128, 49, 4, 32))),
        ],
        "logsumexp": lambda: [
            logsumexp("medium", *((64, 16) if small else (8_192, 128))),
            logsumexp("large", *((512, 16) if small else (65_536, 128))),
        ],
        "retrieval": lambda: [
            *(retrieval(f"{c:,} classes", c, *((400, 16) if small else (10_000, 64))) for c in (10, 100, 2_000)),
            retrieval("large, 10 classes", 10, *((800, 16) if small else (60_000, 64)), alone=True),
        ],
    }
    for case in cases:
        yield from makers[case]()


def find(key: str, *, small: bool) -> Contest:
    """The contest of that key."""
    return next(contest for contest in contests([key.split("/")[0]], small=small) if contest.key == key)


def normal(*shapes: tuple[int, ...], scale: float = 1.0) -> Arrays:
    """Arrays of normal numbers, always the same."""
    random = np.random.default_rng(0)
    return tuple((scale * random.standard_normal(shape)).astype(np.float32) for shape in shapes)


def search(queries: int, rows: int, d: int, k: int = 10) -> Iterator[Contest]:
    """The k nearest rows of a gallery to each query, exactly."""

    def ours(measure: str) -> Callable[..., Ready]:
        def build(query: np.ndarray, gallery: np.ndarray) -> Ready:
            from simjax.similarity import top_k

            return compiled(lambda q, g: top_k(q, g, k, measure=measure), query, gallery)

        return build

    def faiss_index(query: np.ndarray, gallery: np.ndarray) -> Ready:
        import faiss

        faiss.omp_set_num_threads(CORES)
        index = faiss.IndexFlatL2(d)
        index.add(gallery)
        return Ready(lambda: index.search(query, k))

    def sklearn_brute(query: np.ndarray, gallery: np.ndarray) -> Ready:
        from sklearn.neighbors import NearestNeighbors

        fitted = NearestNeighbors(n_neighbors=k, algorithm="brute", n_jobs=CORES).fit(gallery)
        return Ready(lambda: fitted.kneighbors(query))

    def torch_parts(query: np.ndarray, gallery: np.ndarray) -> Ready:
        import torch

        torch.set_num_threads(CORES)
        q, g = torch.from_numpy(query), torch.from_numpy(gallery)
        squares = (g * g).sum(1)

        def run() -> list[Any]:  # |q|^2 changes no order
            parts = [torch.topk(squares - 2 * (part @ g.T), k, largest=False) for part in q.split(1_000)]
            return [torch.cat([p.values for p in parts]), torch.cat([p.indices for p in parts])]

        return Ready(run)

    peers = {"FAISS": faiss_index, "scikit-learn": sklearn_brute, "PyTorch": torch_parts}
    size = f"{queries:,} queries in {rows:,} rows of {d}, k = {k}"
    for measure in ("squared_euclidean", "euclidean"):
        contenders = {OURS: ours(measure), **peers}
        yield Contest("search", measure, size, lambda: normal((queries, d), (rows, d)), contenders, "equal neighbours")


def attention(name: str, batch: int, length: int, heads: int, width: int) -> Contest:
    """Attention, forward and backward for queries, keys and values."""
    shape = (batch, length, heads, width)

    def learned(function: Callable[..., Any], *arrays: np.ndarray) -> Ready:
        import jax

        def step(q: Any, k: Any, v: Any, cotangent: Any) -> tuple[Any, ...]:
            out, backward = jax.vjp(function, q, k, v)
            return out, *backward(cotangent)

        return compiled(step, *arrays)

    def ours(*arrays: np.ndarray) -> Ready:
        from simjax.attention import dot_product_attention

        return learned(dot_product_attention, *arrays)

    def jax_nn(*arrays: np.ndarray) -> Ready:
        from jax.nn import dot_product_attention

        return learned(dot_product_attention, *arrays)

    def eager_torch(*arrays: np.ndarray) -> Ready:
        import torch

        torch.set_num_threads(CORES)
        *qkv, cotangent = (torch.from_numpy(a).transpose(1, 2).contiguous() for a in arrays)
        for a in qkv:
            a.requires_grad_()

        def run() -> list[Any]:
            out = torch.nn.functional.scaled_dot_product_attention(*qkv)
            return [a.detach().transpose(1, 2) for a in (out, *torch.autograd.grad(out, qkv, cotangent))]

        return Ready(run)

    contenders = {OURS: ours, "PyTorch": eager_torch, "JAX": jax_nn}
    size = " x ".join(f"{n:,}" for n in shape)
    return Contest("attention", name, size, lambda: normal(*[shape] * 4), contenders, "largest difference")


def logsumexp(name: str, n: int, d: int) -> Contest:
    """The sum over i of log sum_j exp(x_i . y_j), and its gradient for x and y."""

    def learned(function: Callable[..., Any], *arrays: np.ndarray) -> Ready:
        import jax

        def step(x: Any, y: Any) -> tuple[Any, ...]:
            value, gradients = jax.value_and_grad(lambda x, y: function(x, y).sum(), (0, 1))(x, y)
            return value, *gradients

        return compiled(step, *arrays)

    def ours(*arrays: np.ndarray) -> Ready:

        return learned(lambda x, y: similarity.logsumexp(x, y, measure="dot"), *arrays)

    def jax_nn(*arrays: np.ndarray) -> Ready:
        from jax.nn import logsumexp

        return learned(lambda x, y: logsumexp(x @ y.T, axis=1), *arrays)

    def eager_torch(*arrays: np.ndarray) -> Ready:
        import torch

        require_memory(2 * 4 * n * n)  # the matrix and its gradient
        torch.set_num_threads(CORES)
        x, y = (torch.from_numpy(a).requires_grad_() for a in arrays)

        def run() -> list[Any]:
            value = torch.logsumexp(x @ y.T, dim=1).sum()
            return [value.detach(), *torch.autograd.grad(value, (x, y))]

        return Ready(run)

    contenders = {OURS: ours, "PyTorch": eager_torch, "JAX": jax_nn}

    def inputs() -> Any:
        return normal((n, d), (n, d), scale=0.3)

    return Contest("logsumexp", name, f"{n:,} x {n:,} x {d}", inputs, contenders, "largest difference")


def retrieval(name: str, classes: int, n: int, d: int, alone: bool = False) -> Contest:
    """Precision at 1, MAP at R and R-precision of all rows searched among the others, by Euclidean distance."""

    def inputs() -> Arrays:
        labels = np.arange(n) % min(classes, n // 4)  # small sizes have fewer classes
        centers, noise = normal((classes, d), (n, d))
        return 0.5 * centers[labels] + noise, labels

    def ours(rows: np.ndarray, labels: np.ndarray) -> Ready:
        from simjax.evaluate import retrieval_metrics

        def run() -> list[float]:
            found = retrieval_metrics(rows, labels, measure="euclidean")
            return [found[name] for name in ("precision_at_1", "mean_average_precision_at_r", "r_precision")]

        return Ready(run)

    def accuracy_calculator(rows: np.ndarray, labels: np.ndarray) -> Ready:
        import faiss
        import torch
        from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

        torch.set_num_threads(CORES)
        faiss.omp_set_num_threads(CORES)
        names = ("precision_at_1", "mean_average_precision_at_r", "r_precision")
        calculator = AccuracyCalculator(include=names, k="max_bin_count", device=torch.device("cpu"))
        x, y = torch.from_numpy(rows), torch.from_numpy(labels)

        def run() -> list[float]:
            found = calculator.get_accuracy(x, y)
            return [found[name] for name in names]

        return Ready(run)

    contenders = {OURS: ours} if alone else {OURS: ours, "pytorch-metric-learning, FAISS": accuracy_calculator}
    return Contest("retrieval", name, f"{n:,} x {n:,} x {d}", inputs, contenders, "largest difference")
