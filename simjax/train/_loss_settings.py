"""Settings of losses and miners: the hyper-parameters of all losses and miners, under the names of their arguments.

`None` is the default of the loss or the miner. A setting that the objective or the miner does not take is an error; see
`_validation`.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal

from simjax import losses
from simjax.train._objectives import MINERS, OBJECTIVES, settings_of_miner, settings_of_objective

if TYPE_CHECKING:
    ObjectiveName = str
    MinerName = str
    ReducerName = str
else:
    ObjectiveName = Literal[*OBJECTIVES]
    MinerName = Literal["none", *MINERS]
    ReducerName = Literal[*losses.REDUCERS]

Strategy = Literal["hard", "semi_hard", "easy", "all"]


@dataclasses.dataclass(frozen=True)
class LossSettings:
    """Hyper-parameters of the objective; None: the default of the loss (docs/losses.md).

    Attributes:
        head: {takers}: dot products with weight vectors, or cosine similarity with prototypes
        label_smoothing: {takers}: share of the target that is spread evenly over all classes
        pairs: {takers}: all pairs of a batch with m samples per class, or random pairs as in the classic recipe
        positives: losses of pairs, triplets and ranking: positive pairs are images of one class or, without labels,
            two augmented views of one image
        batches: losses of pairs, triplets and ranking: m images of each class, or images in random order, which
            contain positive pairs only if there are few classes
        samples_per_class: losses of pairs, triplets and ranking: m; None: the batch holds as many classes as possible
            with 4 or more images of each
        memory: losses of pairs, triplets and ranking: number of embeddings of this and earlier batches with which each
            image is compared; 0: those of the batch
        normalize: {takers}: compare embeddings scaled to unit length
        measure: {takers}: name of the measure, such as cosine or manhattan
        learned_measure: {takers}: learn the measure with the encoder, a Mahalanobis distance of low rank or a network
            of two embeddings
        measure_size: {takers}: rank or hidden neurons of the learned measure
        reducer: all but softmax, vicreg, barlow_twins, simsiam: mean of all terms, mean of the terms above 0, sum, or
            mean over rows of the mean of each row
        learn_temperature: {takers}: learn the temperature, starting from the given one
        parameters_rate: losses with learned parameters, such as proxies: their learning rate, as a multiple
        margin: {takers}: in units of the measure; degrees for tuplet_margin, arcface and sub_center_arcface; a whole
            number for sphereface and large_margin_softmax
        positive_margin: {takers}: positive pairs that are closer than this have no loss
        negative_margin: {takers}: negative pairs that are farther apart than this have no loss
        swap: {takers}: use the distance from the negative to the nearer of anchor and positive
        smooth: {takers}: softplus in place of the hinge
        beta: {takers}: initial boundary between positives and negatives; weight of negatives for multi_similarity
        boundary: {takers}: learn one boundary, one for each class, or none
        nu: {takers}: weight of the boundary in the loss
        temperature: {takers}: divides the similarities
        scale: {takers}: multiplies the similarities
        gamma: {takers}: scale of the cosines; for soft_triple the temperature of the softmax over centers
        alpha: {takers}: weight of positives (multi_similarity), angle in degrees (angular), boundary of negatives
            (ranked_list), exponent of variant Dq (pnp), scale (proxy_anchor), damping of the random walk (manifold)
        base: {takers}: similarity that separates positives from negatives
        bins: {takers}: bins of the histogram
        spread: {takers}: the histogram covers differences from minus this to this
        zero_mean: {takers}: weight of the regularizer
        positive_weight: {takers}: weight of positive pairs
        negative_weight: {takers}: weight of negative pairs
        imbalance: {takers}: share of the negatives in the loss
        positive_temperature: {takers}: larger values put more weight on the hardest positives
        negative_temperature: {takers}: larger values put more weight on the hardest negatives
        variant: {takers}: squared, hadsell or linear (contrastive); penalty of a negative that is ranked before a
            positive, O, Iu, Ib, Ds or Dq (pnp)
        b: {takers}: parameter of variant Ib
        centers: {takers}: proxies per class; None: 3
        tau: {takers}: weight of the regularizer that pulls the centers of a class together
        context_weight: {takers}: weight of the second term
        directions: {takers}: classify from the first view to the second, or in both directions
        log_scale: {takers}: initial logarithm of the learned scale
        bias: {takers}: initial value of the learned bias
        invariance: {takers}: weight of the difference between the views
        variance: {takers}: weight of the variance of each feature
        covariance: {takers}: weight of the covariance between features
        epsilon: {takers}: added to the variances
        redundancy: {takers}: weight of the correlation between features
    """

    head: Literal["linear", "cosine"] = "linear"
    label_smoothing: float = 0.1
    pairs: Literal["batch", "random"] = "batch"
    positives: Literal["classes", "views"] = "classes"
    batches: Literal["classes", "shuffled"] = "classes"
    samples_per_class: int | None = None
    memory: int = 0
    normalize: bool = True
    measure: str | None = None
    learned_measure: Literal["low_rank_mahalanobis", "pair_network"] | None = None
    measure_size: int = 32
    reducer: ReducerName | None = None
    learn_temperature: bool = False
    parameters_rate: float = 1.0
    margin: float | None = None
    positive_margin: float | None = None
    negative_margin: float | None = None
    swap: bool = False
    smooth: bool = False
    beta: float | None = None
    boundary: Literal["one", "classes", "fixed"] = "one"
    nu: float | None = None
    temperature: float | None = None
    scale: float | None = None
    gamma: float | None = None
    alpha: float | None = None
    base: float | None = None
    bins: int | None = None
    spread: float | None = None
    zero_mean: float | None = None
    positive_weight: float | None = None
    negative_weight: float | None = None
    imbalance: float | None = None
    positive_temperature: float | None = None
    negative_temperature: float | None = None
    variant: Literal["squared", "hadsell", "linear", "O", "Iu", "Ib", "Ds", "Dq"] | None = None
    b: float | None = None
    centers: int | None = None
    tau: float | None = None
    context_weight: float | None = None
    directions: Literal["rows", "both"] | None = None
    log_scale: float | None = None
    bias: float | None = None
    invariance: float | None = None
    variance: float | None = None
    covariance: float | None = None
    epsilon: float | None = None
    redundancy: float | None = None


@dataclasses.dataclass(frozen=True)
class MiningSettings:
    """Selection of pairs and triplets, for losses of pairs, triplets and ranking; None: the default of the miner.

    The miner `guided`, which needs another model, is available in the library only.

    Attributes:
        miner: name of the miner; none: use all pairs and triplets
        measure: all but angular and distance_weighted: name of the measure; None: the measure of the loss if
            loss.measure or loss.normalize changes that, otherwise the default of the miner
        positive: {takers}: which positive to select for each row
        negative: {takers}: which negative to select for each row
        positive_range: {takers}: lowest and highest value of positives, in units of the measure
        negative_range: {takers}: lowest and highest value of negatives, in units of the measure
        n_positive: {takers}: positives per row
        n_negative: {takers}: negatives per row
        share: {takers}: share of all pairs to select
        epsilon: {takers}: also select pairs that are easier by less than this
        positive_margin: {takers}: select positives farther apart than this
        negative_margin: {takers}: select negatives closer than this
        margin: {takers}: margin between positive and negative
        kind: {takers}: which triplets to select
        angle: {takers}: in degrees
        cutoff: {takers}: smaller distances are treated as this one
        nonzero_loss_cutoff: {takers}: negatives at this distance or farther are never drawn
        bins: {takers}: bins over the range of the measure
        positives_per_bin: {takers}: positives to select from each bin
        negatives_per_bin: {takers}: negatives to select from each bin
        hardness: {takers}: initial hardness, from 0 (the easiest pairs only) to 1 (all pairs); None: 0.2
        start: {takers}: share of the training after which the hardness begins to rise; None: 0
        length: {takers}: share of the training in which the hardness rises to 1; None: 0.5
    """

    miner: MinerName = "none"
    measure: str | None = None
    positive: Strategy | None = None
    negative: Strategy | None = None
    positive_range: tuple[float, float] | None = None
    negative_range: tuple[float, float] | None = None
    n_positive: int | None = None
    n_negative: int | None = None
    share: float | None = None
    epsilon: float | None = None
    positive_margin: float | None = None
    negative_margin: float | None = None
    margin: float | None = None
    kind: Strategy | None = None
    angle: float | None = None
    cutoff: float | None = None
    nonzero_loss_cutoff: float | None = None
    bins: int | None = None
    positives_per_bin: int | None = None
    negatives_per_bin: int | None = None
    hardness: float | None = None
    start: float | None = None
    length: float | None = None


def _name_takers(section: type, names: Iterable[str], settings_of: Callable[[str], frozenset[str]]) -> None:
    """Replace {takers} in the description of each field, for the help, by the objectives or miners that take it."""

    def takers(match: re.Match[str]) -> str:
        return f"{match[1]}: {', '.join(name for name in names if match[1] in settings_of(name))}"

    section.__doc__ = re.sub(r"(\w+): \{takers\}", takers, section.__doc__ or "")


_name_takers(LossSettings, OBJECTIVES, settings_of_objective)
_name_takers(MiningSettings, MINERS, settings_of_miner)
