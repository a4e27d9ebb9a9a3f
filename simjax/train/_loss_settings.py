"""The settings of losses and miners: every hyper-parameter there is, under its own name.

`None` is the loss's or the miner's own default. A docstring begins with who takes the setting; giving it to another
objective or miner is an error (see `_takes`).
"""

import dataclasses
from typing import Literal

ObjectiveName = Literal[
    "softmax",
    "contrastive",
    "triplet",
    "triplet_margin",
    "margin",
    "dynamic_soft_margin",
    "signal_to_noise_contrastive",
    "threshold_consistent_margin",
    "multi_similarity",
    "circle",
    "angular",
    "tuplet_margin",
    "nt_xent",
    "supervised_contrastive",
    "n_pairs",
    "instance",
    "nca",
    "lifted_structure",
    "generalized_lifted_structure",
    "histogram",
    "ranked_list",
    "fast_ap",
    "smooth_ap",
    "pnp",
    "normalized_softmax",
    "cosface",
    "arcface",
    "sub_center_arcface",
    "sphereface",
    "large_margin_softmax",
    "soft_triple",
    "p2s_grad",
    "proxy_nca",
    "proxy_anchor",
    "manifold",
    "info_nce",
    "siglip",
    "vicreg",
    "barlow_twins",
    "simsiam",
]

MinerName = Literal[
    "none",
    "batch_hard",
    "batch_easy_hard",
    "semi_hard",
    "n_hard",
    "hard_aware",
    "multi_similarity",
    "pair_margin",
    "triplet_margin",
    "angular",
    "distance_weighted",
    "uniform_histogram",
    "curriculum",
    "cluster_hard",
]

Strategy = Literal["hard", "semi_hard", "easy", "all"]


@dataclasses.dataclass(frozen=True)
class Loss:
    """The objective's settings; None is the loss's own default (docs/losses.md)."""

    head: Literal["linear", "cosine"] = "linear"
    """softmax: dot products with class vectors, or cosine similarity with prototypes"""
    label_smoothing: float = 0.1
    """softmax: how much of the target is spread over all classes"""
    pairs: Literal["batch", "random"] = "batch"
    """contrastive: all pairs of a batch with m samples per class, or random pairs as in the classic recipe"""
    positives: Literal["classes", "views"] = "classes"
    """losses of pairs, triplets and ranks: what belongs together, images of a class or, without labels, two random
    changes of one image"""
    batches: Literal["classes", "shuffled"] = "classes"
    """losses of pairs, triplets and ranks: m images of each class, or images in random order, which hold positives
    where classes are few"""
    samples_per_class: int | None = None
    """losses of pairs, triplets and ranks: m; None fills the batch with as many classes as fit, 4 or more of each"""
    memory: int = 0
    """losses of pairs, triplets and ranks: how many images of this and earlier batches each image is compared with; 0
    is those of the batch"""
    normalise: bool = True
    """losses by the Euclidean distance, signal_to_noise_contrastive: compare embeddings of unit length"""
    measure: str | None = None
    """losses of pairs by any measure, info_nce, siglip: its name, such as cosine or manhattan"""
    reducer: Literal["mean", "mean_nonzero", "sum", "per_row"] | None = None
    """all but softmax, vicreg, barlow_twins, simsiam: what becomes of the terms, their mean, the mean of those above 0,
    their sum, or the mean over rows of each row's mean"""
    learn_temperature: bool = False
    """losses with a temperature: learn it, beginning at the one given"""
    parameters_rate: float = 1.0
    """losses that learn something themselves, such as class vectors: their learning rate, as a multiple"""
    margin: float | None = None
    """contrastive, triplet, triplet_margin, margin, signal_to_noise_contrastive, circle, tuplet_margin, ranked_list,
    cosface, arcface, sub_center_arcface, sphereface, large_margin_softmax, soft_triple, proxy_anchor, manifold: in
    units of the measure; tuplet_margin and the two arcfaces: degrees; sphereface and large_margin_softmax: a whole
    number"""
    positive_margin: float | None = None
    """contrastive, signal_to_noise_contrastive, threshold_consistent_margin, lifted_structure,
    generalized_lifted_structure: where similar pairs are close enough"""
    negative_margin: float | None = None
    """threshold_consistent_margin, lifted_structure, generalized_lifted_structure: where different pairs are far
    enough"""
    form: Literal["squared", "hadsell", "linear"] | None = None
    """contrastive: one of the three published forms"""
    swap: bool = False
    """triplet, triplet_margin: the negative's distance to the nearer of anchor and positive"""
    smooth: bool = False
    """triplet, triplet_margin: softplus in place of the hinge"""
    beta: float | None = None
    """margin, multi_similarity: the boundary, where it begins; the weight of negatives"""
    boundary: Literal["one", "classes", "fixed"] = "one"
    """margin: learn one boundary, one for each class, or none"""
    nu: float | None = None
    """margin: weight of the boundary itself"""
    temperature: float | None = None
    """nt_xent, supervised_contrastive, smooth_ap, pnp, normalized_softmax, info_nce: closeness is divided by it"""
    scale: float | None = None
    """tuplet_margin, nca, cosface, arcface, sub_center_arcface, sphereface, large_margin_softmax, soft_triple,
    proxy_nca: closeness is multiplied by it"""
    gamma: float | None = None
    """circle, instance, soft_triple: scale of the cosines; soft_triple: temperature of the choice of a centre"""
    alpha: float | None = None
    """multi_similarity, angular, ranked_list, pnp, proxy_anchor, manifold: weight of positives; degrees; boundary of
    negatives; of the variant Dq; scale; how far the walk goes"""
    base: float | None = None
    """multi_similarity: the closeness that separates positives from negatives"""
    bins: int | None = None
    """dynamic_soft_margin, histogram, fast_ap: of the histogram"""
    spread: float | None = None
    """dynamic_soft_margin: differences lie between minus this and this"""
    zero_mean: float | None = None
    """signal_to_noise_contrastive: weight of the regulariser"""
    positive_weight: float | None = None
    """threshold_consistent_margin: of positive pairs"""
    negative_weight: float | None = None
    """threshold_consistent_margin: of negative pairs"""
    imbalance: float | None = None
    """ranked_list: share of the negatives in the loss"""
    positive_temperature: float | None = None
    """ranked_list: the larger, the more the worst positives weigh"""
    negative_temperature: float | None = None
    """ranked_list: the larger, the more the worst negatives weigh"""
    variant: Literal["O", "Iu", "Ib", "Ds", "Dq"] | None = None
    """pnp: the penalty"""
    b: float | None = None
    """pnp: of the variant Ib"""
    centers: int | None = None
    """sub_center_arcface, soft_triple: vectors of each class; None is 3"""
    tau: float | None = None
    """soft_triple: weight of the regulariser that draws a class's centres together"""
    context_weight: float | None = None
    """manifold: weight of the second term"""
    directions: Literal["rows", "both"] | None = None
    """info_nce: the first view chooses among the second, or each among the other"""
    log_scale: float | None = None
    """siglip: logarithm of the scale, where it begins; it is learned"""
    bias: float | None = None
    """siglip: where it begins; it is learned"""
    invariance: float | None = None
    """vicreg: weight of the views' difference"""
    variance: float | None = None
    """vicreg: weight of the features' spread"""
    covariance: float | None = None
    """vicreg: weight of what features share"""
    epsilon: float | None = None
    """vicreg: added to the variances"""
    redundancy: float | None = None
    """barlow_twins: weight of what features share"""


@dataclasses.dataclass(frozen=True)
class Mining:
    """Which pairs and triplets of a batch count, in losses of pairs, triplets and ranks; None is the miner's default.

    What needs another model (guided) is in the library alone.
    """

    miner: MinerName = "none"
    """by name; none takes all"""
    measure: str | None = None
    """all but angular and distance_weighted: its name; None is the loss's where --loss.measure or --loss.no-normalise
    changes that, and otherwise the miner's own"""
    positive: Strategy | None = None
    """batch_easy_hard: which positive of a row"""
    negative: Strategy | None = None
    """batch_easy_hard: which negative of a row"""
    positive_range: tuple[float, float] | None = None
    """batch_easy_hard: lowest and highest value of positives by the measure"""
    negative_range: tuple[float, float] | None = None
    """batch_easy_hard: lowest and highest value of negatives"""
    n_positive: int | None = None
    """n_hard: positives of a row"""
    n_negative: int | None = None
    """n_hard: negatives of a row"""
    share: float | None = None
    """hard_aware: of all pairs"""
    epsilon: float | None = None
    """multi_similarity: by how much easier pairs count, too"""
    positive_margin: float | None = None
    """pair_margin: positives farther apart count"""
    negative_margin: float | None = None
    """pair_margin: negatives closer count"""
    margin: float | None = None
    """triplet_margin: between positive and negative"""
    kind: Strategy | None = None
    """triplet_margin: which triplets"""
    angle: float | None = None
    """angular: in degrees"""
    cutoff: float | None = None
    """distance_weighted: smaller distances count as this one"""
    nonzero_loss_cutoff: float | None = None
    """distance_weighted: negatives from this distance on are never drawn"""
    bins: int | None = None
    """uniform_histogram: of the range of values"""
    positives_per_bin: int | None = None
    """uniform_histogram: how many are kept"""
    negatives_per_bin: int | None = None
    """uniform_histogram: how many are kept"""
    hardness: float | None = None
    """curriculum: at the beginning, from 0, the easiest pairs alone, to 1, all; None is 0.2"""
    start: float | None = None
    """curriculum: share of the training after which hardness begins to rise; None is 0"""
    length: float | None = None
    """curriculum: share of the training in which it rises to 1; None is 0.5"""
