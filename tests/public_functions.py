"""One case for every public array function, and the arrays that the cases take."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from simjax import attention, core, losses, mining, similarity
from simjax.similarity import _measure
from tests.similarity.test_every_measure import DOMAIN, PARAMETERS, draw

N, M, D, CLASSES = 16, 8, 6, 4


def batch():
    """Return arrays whose first axis is sharded: rows, reference rows, proxies, labels, scores, queries and keys."""
    random = np.random.default_rng(0)

    def normal(*shape):
        return np.float32(random.normal(size=shape))

    return {
        "x": normal(N, D),
        "y": normal(N, D),
        "labels": np.int32(random.permutation(np.arange(N) % CLASSES)),
        "ref": normal(M, D),
        "ref_labels": np.int32(random.permutation(np.arange(M) % CLASSES)),
        "proxies": normal(CLASSES, D),
        "centers": normal(CLASSES, 2, D),
        "grades": normal(N),
        "scores": normal(N, M),
        "tokens": normal(N, 3, 2),
        "documents": normal(M, 4, 2),
        "query": normal(4, 5, 4, 3),
        "key": normal(4, 7, 2, 3),
        "value": normal(4, 7, 2, 3),
        "lengths": np.array([7, 3, 5, 6], np.int32),
    }


def of_labels(function, ref=True, **options):
    """Call a function of labelled rows without and, if it takes them, with reference rows."""

    def call(b):
        found = [function(b["x"], b["labels"], **options)]
        if ref:
            found.append(function(b["x"], b["labels"], ref_embeddings=b["ref"], ref_labels=b["ref_labels"], **options))
        return found

    return call


def of_proxies(function, proxies="proxies", **options):
    return lambda b: function(b["x"], b["labels"], proxies=b[proxies], **options)


def of_pairs(function, **options):
    return lambda b: function(b["x"], b["y"], **options)


def of_grades(function):
    return lambda b: function(b["x"], b["y"], b["grades"])


def of_measure(m):
    """Compute pairs and the matrix of a measure, of rows that it is defined on."""
    m = similarity.measure(m, **PARAMETERS.get(m.name, {}))

    def call(b):
        x, y, ref = b["x"][:, :3], b["y"][:, :3], b["ref"][:, :3]
        if m.name in DOMAIN:
            domain = jnp.float32(draw(m.name, N, 3))
            x, y, ref = (jnp.exp(0.1 * a)[:, : domain.shape[1]] * domain[: len(a)] for a in (x, y, ref))
        return m.pair(x, y, **m.parameters), similarity.pairwise(x, ref, m, block_size=4)

    return call


def mined(miner, loss=losses.triplet_margin_loss, **options):
    """Compute the masks of a mined relation and a loss of it, without and with reference rows."""

    def call(b):
        found = []
        for ref in ({}, {"ref_embeddings": b["ref"]}):
            labels = {"ref_labels": b["ref_labels"]} if ref else {}
            relation = miner(b["x"], b["labels"], **ref, **labels, **options)
            i, j = (jnp.arange(size) for size in relation.shape)
            found += [relation.masks(i[:, None], j[None]), loss(b["x"], relation, **ref)]
        return found

    return call


def guided(b):
    relation = mining.guided(b["y"], b["labels"])
    return losses.nt_xent_loss(b["x"], relation)


def clusters(b):
    anchors, references, relation = mining.cluster_hard(b["x"], b["labels"])
    return anchors, losses.triplet_margin_loss(anchors, relation, ref_embeddings=references)


def memory(b):
    empty = mining.cross_batch_memory(16, D)
    return mining.push(mining.push(empty, b["ref"], b["ref_labels"]), b["x"], b["labels"])


def memory_loss(b):
    full = memory(b)
    return losses.contrastive_loss(b["x"], mining.against(full, b["labels"]), ref_embeddings=full.embeddings)


def dynamic_histogram(b):
    first = losses.dynamic_soft_margin_histogram(b["x"], b["labels"])
    return first, losses.dynamic_soft_margin_loss(b["y"], b["labels"], histogram=first)


def reduced(reduction, **options):
    """Reduce rows among themselves in one block, and with reference rows in several blocks."""

    def call(b):
        same = similarity.all_of(similarity.same_label(b["labels"]), similarity.exclude_self)
        return reduction(b["x"], mask=same, measure="euclidean", **options), reduction(
            b["x"], b["ref"], measure="cosine", block_size=2, **options
        )

    return call


def pair_terms(scores, positive, negative):
    return {"positive": (jax.nn.relu(1 - scores), positive), "negative": (jnp.exp(scores), negative)}


def attended(function, **options):
    def call(b):
        mask = {"key_value_seq_lengths": b["lengths"], "is_causal": True}
        return function(b["query"], b["key"], b["value"], **mask, **options)

    return call


MATRICES = {
    "pairwise": lambda b: similarity.pairwise(b["x"]),
    "top_k": lambda b: (
        similarity.top_k(b["x"], b["ref"], 3, "euclidean"),
        similarity.top_k(b["x"], b["x"], 3, "manhattan", exclude=jnp.arange(len(b["x"])), block_size=2),
    ),
    "maxsim_matrix": lambda b: similarity.maxsim_matrix(b["tokens"], b["documents"], block_size=4),
    "maxsim_similarity": lambda b: similarity.maxsim_similarity(b["tokens"], b["tokens"][::-1]),
    "unit_vectors": lambda b: similarity.unit_vectors(b["x"]),
    "combine_embeddings": lambda b: similarity.combine_embeddings([b["x"], b["y"]]),
    "centered_kernel_alignment": lambda b: [
        similarity.centered_kernel_alignment(b["x"], b["y"], kernel=kernel) for kernel in ("linear", "rbf")
    ],
    "alignment": lambda b: similarity.alignment(b["x"], b["y"]).update(b["y"], b["x"]).value,
    "frechet_distance": lambda b: similarity.frechet_distance(
        similarity.moments(b["x"]), similarity.moments(b["y"]).update(b["ref"])
    ),
    "moments": lambda b: similarity.moments(b["x"]).update(b["ref"]).covariance,
    "maximum_mean_discrepancy": lambda b: similarity.maximum_mean_discrepancy(b["x"], b["ref"]),
    "sliced_wasserstein_distance": lambda b: similarity.sliced_wasserstein_distance(
        b["x"], b["ref"], key=jax.random.key(0)
    ),
}
CASES = {
    **{
        f"similarity.{m.pair.__name__}": of_measure(m)
        for m in _measure.MEASURES.values()
        if m.pair.__module__.startswith("simjax.")
    },
    **{f"similarity.{name}": case for name, case in MATRICES.items()},
    "attention.attention": attended(attention.attention, measure="euclidean", return_weights=True),
    "attention.dot_product_attention": attended(attention.dot_product_attention, block_size=2),
    "losses.angle_loss": of_grades(losses.angle_loss),
    "losses.angular_loss": of_labels(losses.angular_loss),
    "losses.arcface_loss": of_proxies(losses.arcface_loss),
    "losses.barlow_twins_loss": of_pairs(losses.barlow_twins_loss),
    "losses.center_invariant_regularizer": lambda b: losses.center_invariant_regularizer(b["proxies"]),
    "losses.circle_loss": of_labels(losses.circle_loss),
    "losses.combined_loss": of_labels(
        functools.partial(losses.combined_loss, {"circle": losses.circle_loss, "triplet": losses.triplet_margin_loss})
    ),
    "losses.contrastive_loss": of_labels(losses.contrastive_loss),
    "losses.contrastive_terms": lambda b: losses.contrastive_terms(b["grades"], b["labels"] == 0),
    "losses.cosent_loss": of_grades(losses.cosent_loss),
    "losses.cosface_loss": of_proxies(losses.cosface_loss),
    "losses.dynamic_soft_margin_histogram": dynamic_histogram,
    "losses.dynamic_soft_margin_loss": of_labels(losses.dynamic_soft_margin_loss),
    "losses.encode_in_chunks": lambda b: losses.encode_in_chunks(
        lambda rows: jnp.tanh(rows) @ core.replicated(b["proxies"]).T, b["x"], chunk_size=4
    ),
    "losses.fast_ap_loss": of_labels(losses.fast_ap_loss),
    "losses.generalized_lifted_structure_loss": of_labels(losses.generalized_lifted_structure_loss),
    "losses.global_orthogonal_regularizer": of_labels(losses.global_orthogonal_regularizer, ref=False),
    "losses.histogram_loss": of_labels(losses.histogram_loss),
    "losses.info_nce_loss": of_pairs(losses.info_nce_loss, directions="both"),
    "losses.instance_loss": of_labels(losses.instance_loss, ref=False),
    "losses.intra_pair_variance_loss": of_labels(losses.intra_pair_variance_loss),
    "losses.large_margin_softmax_loss": of_proxies(losses.large_margin_softmax_loss),
    "losses.lifted_structure_loss": of_labels(losses.lifted_structure_loss),
    "losses.lp_regularizer": lambda b: losses.lp_regularizer(b["x"]),
    "losses.manifold_loss": of_proxies(losses.manifold_loss),
    "losses.margin_loss": lambda b: losses.margin_loss(b["x"], b["labels"], beta=1 + 0.1 * b["proxies"][:, 0]),
    "losses.matryoshka_loss": of_labels(
        functools.partial(losses.matryoshka_loss, losses.contrastive_loss, sizes=(4, D))
    ),
    "losses.multi_similarity_loss": of_labels(losses.multi_similarity_loss),
    "losses.n_pairs_loss": of_labels(losses.n_pairs_loss, ref=False),
    "losses.nca_loss": of_labels(losses.nca_loss),
    "losses.normalized_softmax_loss": of_proxies(losses.normalized_softmax_loss),
    "losses.nt_xent_loss": of_labels(losses.nt_xent_loss),
    "losses.p2s_grad_loss": of_proxies(losses.p2s_grad_loss),
    "losses.pair_loss": of_labels(functools.partial(losses.pair_loss, pair_terms, block_size=4, reducer="per_row")),
    "losses.pnp_loss": of_labels(losses.pnp_loss),
    "losses.proxy_anchor_loss": of_proxies(losses.proxy_anchor_loss),
    "losses.proxy_nca_loss": of_proxies(losses.proxy_nca_loss),
    "losses.ranked_list_loss": of_labels(losses.ranked_list_loss),
    "losses.regular_face_regularizer": lambda b: losses.regular_face_regularizer(b["proxies"]),
    "losses.score_distillation_loss": lambda b: losses.score_distillation_loss(
        b["x"], b["scores"], ref_embeddings=b["ref"]
    ),
    "losses.self_supervised_loss": of_pairs(
        functools.partial(losses.self_supervised_loss, losses.multi_similarity_loss)
    ),
    "losses.siglip_loss": of_pairs(losses.siglip_loss),
    "losses.signal_to_noise_contrastive_loss": of_labels(losses.signal_to_noise_contrastive_loss),
    "losses.similarity_distillation_loss": lambda b: losses.similarity_distillation_loss(b["x"], b["y"], b["labels"]),
    "losses.simsiam_loss": of_pairs(losses.simsiam_loss),
    "losses.smooth_ap_loss": of_labels(losses.smooth_ap_loss),
    "losses.soft_triple_loss": of_proxies(losses.soft_triple_loss, "centers"),
    "losses.sparse_centers_regularizer": lambda b: losses.sparse_centers_regularizer(b["centers"]),
    "losses.sphereface_loss": of_proxies(losses.sphereface_loss),
    "losses.sub_center_arcface_loss": of_proxies(losses.sub_center_arcface_loss, "centers"),
    "losses.sub_center_outliers": of_proxies(losses.sub_center_outliers, "centers"),
    "losses.supervised_contrastive_loss": of_labels(losses.supervised_contrastive_loss),
    "losses.threshold_consistent_margin_loss": of_labels(losses.threshold_consistent_margin_loss),
    "losses.triplet_margin_loss": lambda b: [
        of_labels(losses.triplet_margin_loss, swap=swap, smooth=smooth)(b)
        for swap, smooth in itertools.product((False, True), repeat=2)
    ],
    "losses.tuplet_margin_loss": of_labels(losses.tuplet_margin_loss),
    "losses.unreduced": of_labels(losses.unreduced(losses.nt_xent_loss)),
    "losses.vicreg_loss": of_pairs(losses.vicreg_loss),
    "losses.zero_mean_regularizer": lambda b: losses.zero_mean_regularizer(b["x"]),
    "mining.angular": mined(mining.angular),
    "mining.batch_easy_hard": mined(mining.batch_easy_hard),
    "mining.batch_hard": mined(mining.batch_hard),
    "mining.cluster_hard": clusters,
    "mining.cross_batch_memory": memory,
    "mining.push": memory,
    "mining.against": memory_loss,
    "mining.curriculum": mined(mining.curriculum, losses.contrastive_loss, hardness=0.5),
    "mining.distance_weighted": mined(mining.distance_weighted, key=jax.random.key(0)),
    "mining.guided": guided,
    "mining.hard_aware": mined(mining.hard_aware, losses.contrastive_loss),
    "mining.hard_negatives": lambda b: (
        mining.hard_negatives(b["x"], b["labels"]),
        mining.hard_negatives(
            b["x"],
            b["labels"],
            ref_embeddings=b["ref"],
            ref_labels=b["ref_labels"],
            k=2,
            sampling="random",
            key=jax.random.key(0),
        ),
    ),
    "mining.multi_similarity": mined(mining.multi_similarity, losses.multi_similarity_loss),
    "mining.n_hard": mined(mining.n_hard, losses.contrastive_loss),
    "mining.pair_margin": mined(mining.pair_margin, losses.contrastive_loss),
    "mining.semi_hard": mined(mining.semi_hard),
    "mining.statistics": of_labels(mining.statistics),
    "mining.triplet_margin": mined(mining.triplet_margin),
    "mining.uniform_histogram": mined(mining.uniform_histogram, losses.contrastive_loss, key=jax.random.key(0), bins=5),
    "similarity.count": reduced(similarity.count, function=lambda s: s > 0.5),
    "similarity.logsumexp": reduced(similarity.logsumexp),
    "similarity.max": reduced(similarity.max),
    "similarity.mean": reduced(similarity.mean),
    "similarity.min": reduced(similarity.min),
    "similarity.softmax_weighted_sum": lambda b: similarity.softmax_weighted_sum(b["x"], b["ref"], b["scores"].T),
    "similarity.sum": reduced(similarity.sum),
    "similarity.largest_k": reduced(similarity.largest_k, k=3),
    "similarity.order_statistics": reduced(similarity.order_statistics, ks=(1, 3)),
    "similarity.histogram": lambda b: [
        reduced(similarity.histogram, edges=jnp.linspace(-1, 3, 5), soft=soft)(b) for soft in (False, True)
    ],
    "similarity.reduce_rows": lambda b: similarity.reduce_rows(
        lambda s, i, j: jnp.sum(jnp.tanh(s), axis=1), b["x"], b["ref"]
    ),
    "similarity.all_of": lambda b: similarity.sum(
        b["x"], mask=similarity.all_of(similarity.different_label(b["labels"]), similarity.causal)
    ),
    "similarity.causal": lambda b: similarity.sum(b["x"], mask=similarity.causal),
    "similarity.different_label": lambda b: similarity.sum(b["x"], mask=similarity.different_label(b["labels"])),
    "similarity.exclude_self": lambda b: similarity.sum(b["x"], mask=similarity.exclude_self),
    "similarity.same_label": lambda b: similarity.sum(b["x"], mask=similarity.same_label(b["labels"])),
}
NO_ARRAYS = {  # public names that are no functions of arrays
    **dict.fromkeys(("similarity.Alignment", "similarity.Measure", "similarity.Moments"), "a dataclass"),
    **dict.fromkeys(("losses.LossTerms", "losses.Reducer", "losses.SubCenterOutliers"), "a dataclass"),
    **dict.fromkeys(("mining.CrossBatchMemory", "mining.MiningStatistics"), "a dataclass"),
    "similarity.measure": "finds a measure by its name",
    "similarity.default_block_size": "returns an integer that depends on shapes only",
    "similarity.Mask": "a type",
    **dict.fromkeys(("losses.REDUCERS", "similarity.PRECISIONS"), "a table"),
    **dict.fromkeys(("losses.ClassOptions", "losses.PairOptions", "losses.ReferenceOptions"), "types of options"),
    **dict.fromkeys(("attention.AttentionOptions", "similarity.ReductionOptions"), "types of options"),
}
