"""Pair losses as loops over pairs, in NumPy: functions of embeddings x [n, d] and y [m, d] and two masks [n, m].

Without reference embeddings y is x itself, the same object.
"""

import numpy as np

from tests.losses.cases import cosine, euclidean, mean, mean_above_zero, rows, unit


def nt_xent(x, y, positive, negative, t=0.07):
    s = cosine(x, y)
    terms = []
    for i, (p, q) in enumerate(rows(positive, negative)):
        others = sum(np.exp(s[i, k] / t) for k in q)
        terms += [-np.log(np.exp(s[i, k] / t) / (np.exp(s[i, k] / t) + others)) for k in p]
    return mean(terms)


def supervised_contrastive(x, y, positive, negative, t=0.1):
    s = cosine(x, y)
    terms = []
    for i, (p, q) in enumerate(rows(positive, negative)):
        total = sum(np.exp(s[i, k] / t) for k in [*p, *q])
        if len(p):
            terms.append(-np.mean([np.log(np.exp(s[i, k] / t) / total) for k in p]))
    return mean_above_zero(terms)


def multi_similarity(x, y, positive, negative, alpha=2.0, beta=50.0, base=0.5):
    s = cosine(x, y)
    terms = []
    for i, (p, q) in enumerate(rows(positive, negative)):
        near = np.log(1 + sum(np.exp(alpha * (base - s[i, k])) for k in p)) / alpha
        far = np.log(1 + sum(np.exp(beta * (s[i, k] - base)) for k in q)) / beta
        terms.append(near + far)
    return mean(terms)


def circle(x, y, positive, negative, m=0.4, gamma=80.0):
    s = cosine(x, y)
    terms = []
    for i, (p, q) in enumerate(rows(positive, negative)):
        if len(p) and len(q):
            near = sum(np.exp(-gamma * max(0, 1 + m - s[i, k]) * (s[i, k] - 1 + m)) for k in p)
            far = sum(np.exp(gamma * max(0, s[i, k] + m) * (s[i, k] - m)) for k in q)
            terms.append(np.log1p(near * far))
    return mean_above_zero(terms)


def nca(x, y, positive, negative):
    d = euclidean(x, y)
    terms = []
    for i, (p, q) in enumerate(rows(positive, negative)):
        near, far = (sum(np.exp(-(d[i, k] ** 2)) for k in part) for part in (p, q))
        if len(p):
            terms.append(-np.log(near / (near + far)))
    return mean(terms)


def generalized_lifted_structure(x, y, positive, negative, margin=1.0):
    d = euclidean(x, y)
    terms = []
    for i, (p, q) in enumerate(rows(positive, negative)):
        if len(p) and len(q):
            far, near = sum(np.exp(d[i, k]) for k in p), sum(np.exp(margin - d[i, k]) for k in q)
            terms.append(max(0, np.log(far) + np.log(near)))
    return mean(terms)


def tuplet_margin(x, y, positive, negative, margin=5.73, scale=64.0):
    s = cosine(x, y)
    terms = []
    for i, (p, q) in enumerate(rows(positive, negative)):
        for k in p:
            slack = np.cos(np.arccos(s[i, k]) - np.deg2rad(margin))
            terms.append(np.log(1 + sum(np.exp(scale * (s[i, n] - slack)) for n in q)))
    return mean(terms)


def contrastive(x, y, positive, negative, margin=1.0):
    d = euclidean(x, y)
    near, far = [], []
    for i, (p, q) in enumerate(rows(positive, negative)):
        near += [d[i, k] for k in p]
        far += [max(0, margin - d[i, k]) for k in q]
    return mean_above_zero(near) + mean_above_zero(far)


def triplet_margin(x, y, positive, negative, margin=0.05):
    d = euclidean(x, y)
    triplets = [d[i, a] - d[i, b] + margin for i, (p, q) in enumerate(rows(positive, negative)) for a in p for b in q]
    return mean_above_zero(triplets)


def signal_to_noise(x, y):
    return np.var(unit(x)[:, None] - unit(y)[None], axis=2) / np.var(unit(x), axis=1)[:, None]


def lifted_structure(x, y, positive, negative, margin=1.0):
    """Without reference rows a positive has a row of its own, otherwise only a column."""
    d = euclidean(x, y)
    one_set = x is y
    terms = []
    for i, (p, q) in enumerate(rows(positive, negative)):
        for k in p:
            near = [d[i, n] for n in q] + [
                (d[k, n] if one_set else d[n, k]) for n in np.flatnonzero(negative[k] if one_set else negative[:, k])
            ]
            if near:
                terms.append(max(0, np.log(sum(np.exp(margin - v) for v in near)) + d[i, k]) ** 2 / 2)
    return mean(terms)


def earlier(positive):
    return [sum(positive[i, :i]) for i in range(len(positive))]


def n_pairs(x, y, positive, negative):
    s = cosine(x, y)
    before = earlier(positive)
    first, second = ([k for k in range(len(s)) if before[k] == rank] for rank in (0, 1))
    terms = []
    for i in first:
        others = sum(np.exp(s[i, n]) for n in second if negative[i, n])
        terms += [np.log(np.exp(s[i, p]) + others) - s[i, p] for p in second if positive[i, p]]
    return mean(terms)


def margin(x, y, positive, negative, beta=1.2, margin=0.2):
    d = euclidean(x, y)
    triplets = [(d[i, p], d[i, n]) for i, (ps, qs) in enumerate(rows(positive, negative)) for p in ps for n in qs]
    near, far = [max(0, p - beta + margin) for p, _ in triplets], [max(0, beta - n + margin) for _, n in triplets]
    return mean_above_zero(near + far)


def intra_pair_variance(x, y, positive, negative, eps=0.01):
    s = cosine(x, y)
    near = np.maximum(0, (1 - eps) * mean(s[positive]) - s[positive]) ** 2
    far = np.maximum(0, s[negative] - (1 + eps) * mean(s[negative])) ** 2
    return mean(near) + mean(far)


def signal_to_noise_contrastive(x, y, positive, negative, margin=1.0):
    d = signal_to_noise(x, y)
    return mean_above_zero(d[positive]) + mean_above_zero(margin - d[negative])


def threshold_consistent_margin(x, y, positive, negative, low=0.9, high=0.5):
    s = cosine(x, y)
    near, far = s[positive], s[negative]
    return mean(low - near[near <= low]) + mean(far[far >= high] - high)


def instance(x, y, positive, negative, gamma=64.0):
    s = cosine(x, y)
    first = [k for k, before in enumerate(earlier(positive)) if before == 0]
    terms = []
    for i in range(len(s)):
        others = sum(np.exp(gamma * s[i, k]) for k in first if negative[i, k])
        terms += [np.log1p(others * np.exp(-gamma * s[i, k])) for k in first if positive[i, k]]
    return mean(terms)


def sigmoid(z):
    return 1 / (1 + np.exp(-np.clip(z, -500, 500)))


def with_own_row(x, y, positive, negative):
    """Return the index, the positives with the row itself, and the negatives of each row with positives."""
    found = [(i, p, q) for i, (p, q) in enumerate(rows(positive, negative)) if len(p)]
    return [(i, np.sort(np.append(p, i)) if x is y else p, q) for i, p, q in found]


def smooth_ap(x, y, positive, negative, t=0.01):
    s, terms = cosine(x, y), []
    for i, near, far in with_own_row(x, y, positive, negative):
        precision = []
        for p in near:
            positives = 1 + sum(sigmoid((s[i, k] - s[i, p]) / t) for k in near if k != p)
            precision.append(positives / (positives + sum(sigmoid((s[i, k] - s[i, p]) / t) for k in far)))
        terms.append(1 - np.mean(precision))
    return mean(terms)


def pnp(x, y, positive, negative, penalty=lambda r: r, t=0.01):
    s, terms = cosine(x, y), []
    for i, near, far in with_own_row(x, y, positive, negative):
        terms.append(np.mean([penalty(sum(sigmoid((s[i, k] - s[i, p]) / t) for k in far)) for p in near]))
    return mean(terms)


def angular(x, y, positive, negative, alpha=40.0):
    a, b, tangent, terms = unit(x), unit(y), np.tan(np.deg2rad(alpha)) ** 2, []
    for i, (near, far) in enumerate(rows(positive, negative)):
        for p in near:
            bounds = [4 * tangent * (a[i] + b[p]) @ b[k] - 2 * (1 + tangent) * a[i] @ b[p] for k in far]
            terms.append(np.log(1 + sum(np.exp(bounds))))
    return mean(terms)


def ranked_list(x, y, positive, negative, margin=0.4, alpha=1.2, near_t=0.0, far_t=10.0):
    d, terms = euclidean(x, y), []
    for i, (near, far) in enumerate(rows(positive, negative)):
        too_far = [d[i, p] - (alpha - margin) for p in near if d[i, p] > alpha - margin]
        too_near = [alpha - d[i, k] for k in far if d[i, k] < alpha]
        both = []
        for violations, t in ((too_far, near_t), (too_near, far_t)):
            weights = [np.exp(t * v) for v in violations]
            both.append(sum(w * v for w, v in zip(weights, violations, strict=True)) / (sum(weights) + 1e-5 * len(y)))
        if len(near) or len(far):
            terms.append(0.5 * both[0] + 0.5 * both[1])
    return mean(terms)


def histogram(x, y, positive, negative, bins=100):
    s, edges = cosine(x, y), np.linspace(-1, 1, bins + 1)

    def density(pairs):
        found = np.zeros(bins + 1)
        for value in s[pairs]:
            found += np.maximum(0, 1 - abs(value - edges) / (2 / bins))
        return found / max(len(s[pairs]), 1)

    return sum(density(negative) * np.cumsum(density(positive)))


def differences(x, y, positive, negative):
    d = euclidean(x, y)
    return np.array(
        [d[i, p] - d[i, k] for i, (near, far) in enumerate(rows(positive, negative)) for p in near for k in far]
    )


def batch_histogram(found, bins=10, spread=2.0):
    shares = np.zeros(bins)
    for place in np.minimum((found + spread) / (2 * spread / bins), bins - 1):
        below = int(place)
        shares[below] += 1 - (place - below)
        if place > below:
            shares[below + 1] += place - below
    return shares / shares.sum()


def dynamic_soft_margin(x, y, positive, negative):
    found = differences(x, y, positive, negative)
    weights = np.cumsum(batch_histogram(found))[np.int32(np.minimum(found + 2, 3.6) / 0.4)]
    return mean(weights * found)


def fast_ap(x, y, positive, negative, bins=10):
    d, terms = euclidean(x, y) ** 2, []
    for i, (p, q) in enumerate(rows(positive, negative)):
        total = all_before = positives_before = 0.0
        for b in range(bins + 1):
            share = np.maximum(0, 1 - abs(d[i] - 4 * b / bins) / (4 / bins))
            positives_before += share[p].sum()
            all_before += share[p].sum() + share[q].sum()
            if all_before > 0:
                total += share[p].sum() * positives_before / all_before
        if len(p):
            terms.append(1 - total / len(p))
    return mean(terms)


ORACLES = {
    "nt_xent": nt_xent,
    "supervised_contrastive": supervised_contrastive,
    "multi_similarity": multi_similarity,
    "circle": circle,
    "nca": nca,
    "generalized_lifted_structure": generalized_lifted_structure,
    "tuplet_margin": tuplet_margin,
    "contrastive": contrastive,
    "triplet_margin": triplet_margin,
    "lifted_structure": lifted_structure,
    "n_pairs": n_pairs,
    "margin": margin,
    "intra_pair_variance": intra_pair_variance,
    "signal_to_noise_contrastive": signal_to_noise_contrastive,
    "threshold_consistent_margin": threshold_consistent_margin,
    "instance": instance,
    "ranked_list": ranked_list,
    "histogram": histogram,
    "dynamic_soft_margin": dynamic_soft_margin,
    "pnp": pnp,
    "smooth_ap": smooth_ap,
    "angular": angular,
    "fast_ap": fast_ap,
}
