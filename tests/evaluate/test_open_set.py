"""Open-set identification and its intervals, against NumPy loops and SciPy."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from simjax.core import InputError
from simjax.evaluate import open_set_metrics, open_set_search
from tests.slow import mostly_slow


def drawn(seed):
    """Return a gallery of 7 people, mated probes and strangers, in one dimension more than 2."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(12, 3))
    people = {"gallery": random.permutation(np.arange(7).repeat(2)), "probe": random.integers(0, 7, 97)}
    people["unknown"] = 7 + np.arange(23) % 5
    x = {name: np.float32(centres[ids] + 0.6 * random.normal(size=(len(ids), 3))) for name, ids in people.items()}
    return x, people


def searched(x, people, measure):
    arguments = (x["probe"], people["probe"], x["unknown"], x["gallery"], people["gallery"])
    return open_set_search(*arguments, measure=measure, unknown_identities=people["unknown"])


def closeness(x, y, measure):
    return 1 - cdist(x, y, "cosine") if measure == "cosine" else -cdist(x, y, measure)


def ranked_identities(row, identities):
    """Return the identities from the closest to the farthest, each at its closest row, and their closeness."""
    found = {}
    for column in np.argsort(-row, kind="stable"):
        found.setdefault(int(identities[column]), row[column])
    return list(found), found


@pytest.mark.parametrize("measure", mostly_slow(["euclidean", "cosine"], "euclidean"))
def test_equals_a_loop_over_probes(measure):
    x, people = drawn(0)
    sign, threshold = (-1, 1.1) if measure == "euclidean" else (1, 0.85)
    search = searched(x, people, measure)
    missed, below, first, false = (np.zeros(12, int) for _ in range(4))
    for n, row in enumerate(closeness(x["probe"], x["gallery"], measure)):
        mate = people["probe"][n]
        order, closest = ranked_identities(row, people["gallery"])
        first[mate] += order[0] == mate
        below[mate] += closest[mate] < sign * threshold
        missed[mate] += order[0] != mate or closest[mate] < sign * threshold
        assert search.ranks[n] == 1 + order.index(mate)
        assert search.mate_scores[n] == pytest.approx(sign * closest[mate], rel=1e-5)
    for n, row in enumerate(closeness(x["unknown"], x["gallery"], measure)):
        assert search.unknown_scores[n] == pytest.approx(sign * row.max(), rel=1e-5)
        false[people["unknown"][n]] += row.max() >= sign * threshold
    found = search.metrics(threshold)
    assert 97 > first.sum() > 97 - missed.sum() > 0
    assert 0 < below.sum() < missed.sum()
    assert 0 < false.sum() < 23
    assert found["fnir_at_rank_1"] == missed.sum() / 97
    assert found["fnir_at_any_rank"] == below.sum() / 97
    assert found["rank_1_rate"] == first.sum() / 97
    assert found["fpir"] == false.sum() / 23
    assert (found["probes"], found["unknown_probes"], found["gallery_size"]) == (97, 23, 7)
    known, unknown = found["by_identity"], found["unknown_by_identity"]
    assert known["probes"] == [np.sum(people["probe"] == i) for i in known["identities"]]
    assert known["missed_at_rank_1"] == missed[known["identities"]].tolist()
    assert known["missed_at_any_rank"] == below[known["identities"]].tolist()
    assert known["rank_1_matches"] == first[known["identities"]].tolist()
    assert unknown["identities"] == [7, 8, 9, 10, 11]
    assert (unknown["probes"], unknown["false_positives"]) == ([5, 5, 5, 4, 4], false[7:].tolist())
    arguments = (x["probe"], people["probe"], x["unknown"], x["gallery"], people["gallery"])
    options = {"measure": measure, "unknown_identities": people["unknown"]}
    assert open_set_metrics(*arguments, threshold=threshold, **options) == found


@pytest.mark.parametrize("measure", mostly_slow(["euclidean", "cosine"], "euclidean"))
def test_the_curve_has_the_rates_at_each_of_its_thresholds(measure):
    x, people = drawn(1)
    search = searched(x, people, measure)
    curve = search.curve()
    assert len(curve["thresholds"]) == 97 + 23 + 1
    assert curve["gallery_size"] == 7
    names = ("fpir", "fnir_at_rank_1", "fnir_at_any_rank")
    for n, threshold in enumerate(curve["thresholds"]):
        rates = search.metrics(threshold)
        assert [curve[name][n] for name in names] == pytest.approx([rates[name] for name in names], abs=1e-12)
    assert [curve[name][0] for name in names] == [0, 1, 1]
    assert [curve[name][-1] for name in names] == [1, pytest.approx(np.mean(search.ranks > 1)), 0]


@pytest.mark.parametrize("rank", [1, 2, 7])
def test_the_identification_rate_is_the_highest_of_all_thresholds_that_keep_the_fpir(rank):
    x, people = drawn(2)
    search = searched(x, people, "euclidean")
    assert 0 < np.sum(search.ranks == 1) < np.sum(search.ranks <= 2) < 97
    for wanted in (0.1, 0.3, 0.9):
        found = search.dir_at_fpir(wanted, rank=rank)
        rates = [
            (np.mean(search.unknown_scores <= t), np.mean((search.mate_scores <= t) & (search.ranks <= rank)))
            for t in [*search.unknown_scores, *search.mate_scores]
        ]
        assert found["dir"] == pytest.approx(max(rate for fpir, rate in rates if fpir <= wanted))
        assert found["fpir"] == int(wanted * 23) / 23
        at = search.metrics(found["threshold"])
        assert at["fpir"] == found["fpir"]
        fnir = {1: at["fnir_at_rank_1"], 7: at["fnir_at_any_rank"]}
        assert rank == 2 or found["dir"] == pytest.approx(1 - fnir[rank])
        assert (found["rank"], found["wanted_fpir"], found["gallery_size"]) == (rank, wanted, 7)
        assert (found["probes"], found["unknown_probes"]) == (97, 23)
    too_few = search.dir_at_fpir(0.04, rank=rank)  # 0.04 * 23 is less than one image
    assert (too_few["dir"], too_few["fpir"], too_few["threshold"]) == (None, None, None)
    assert (too_few["wanted_fpir"], too_few["unknown_probes"]) == (0.04, 23)


def flattened_dir(comparisons, mate_scores, is_first, wanted):
    """Return the DIR of an evaluator that takes every comparison for a trial of its own."""
    threshold = np.sort(comparisons)[::-1][int(wanted * len(comparisons))]
    return np.mean(is_first & (mate_scores > threshold))


def looped_dir(mated, mates, unknown, wanted):
    """Return the DIR of a loop over searches, given similarities [p, N] and [u, N]."""
    best = sorted((max(row) for row in unknown), reverse=True)
    threshold = best[int(wanted * len(unknown))]
    hits = 0
    for row, mate in zip(mated, mates, strict=True):
        hits += int(np.argmax(row)) == mate and row[mate] > threshold
    return hits / len(mated)


def test_a_search_is_one_trial_although_it_makes_n_comparisons():
    """If each comparison counts as a trial, the rate is wrong in either direction, by more than a quarter."""
    random = np.random.default_rng(3)
    mates = np.arange(30).repeat(4)
    for look_alikes in (True, False):
        # Of 120 probes of the 30 enrolled identities, and of 120 unknown ones.
        scores = random.uniform(-0.2, 0.2, (240, 30))
        own = random.uniform(0.15, 0.9, 120)
        if look_alikes:  # the enrolled identities are twins, and no stranger resembles any of them
            own = random.uniform(0.3, 0.9, 120)
            scores[np.arange(120), mates ^ 1] = own - 0.05
        else:  # one comparison of every third search of a stranger is close
            scores[np.arange(120, 240, 3), random.integers(0, 30, 40)] = random.uniform(0.2, 0.8, 40)
        scores[np.arange(120), mates] = own
        # Embeddings whose dot products are the given similarities.
        search = open_set_search(scores[:120], mates, scores[120:], np.eye(30), np.arange(30), measure="dot")
        right = looped_dir(scores[:120], mates, scores[120:], 0.01)
        found = search.dir_at_fpir(0.01)
        assert found["dir"] == pytest.approx(right)
        assert found["fpir"] == pytest.approx(1 / 120)
        is_other = np.concatenate([np.arange(30) != mates[:, None], np.ones((120, 30), bool)])
        compared = scores[is_other] if look_alikes else scores[120:].ravel()
        change = flattened_dir(compared, own, search.ranks == 1, 0.01) - right
        assert change < -0.25 if look_alikes else change > 0.25


def test_a_score_equal_to_the_threshold_passes_and_names_are_identities():
    arguments = ([[0.5]], ["ann"], [[3.0], [2.75]], [[1.0], [2.0]], ["ann", "bob"])
    found = open_set_metrics(*arguments, measure="euclidean", threshold=0.75)
    assert (found["fnir_at_rank_1"], found["fpir"]) == (0.0, 0.5)
    assert found["unknown_by_identity"]["identities"] == [0, 1]
    assert open_set_metrics(*arguments, measure="euclidean", threshold=0.4)["fnir_at_rank_1"] == 1


def test_equal_scores_are_ranked_by_row_and_pass_a_threshold_together():
    gallery, names = [[1.0], [1.0], [2.0], [1.0]], ["ann", "bob", "cy", "ann"]
    search = open_set_search(
        [[1.0], [1.0], [1.5]], ["ann", "bob", "cy"], [[5.0]] * 4, gallery, names, measure="euclidean"
    )
    assert search.ranks.tolist() == [1, 2, 3]
    assert search.mate_scores.tolist() == [0, 0, 0.5]
    assert search.unknown_scores.tolist() == [3] * 4
    at_most_half = search.dir_at_fpir(0.5, rank=3)  # all strangers are equally close, so none of them may pass
    assert (at_most_half["dir"], at_most_half["fpir"]) == (1, 0)


def test_no_threshold_below_all_mates_is_the_one_beyond_the_closest_stranger():
    search = open_set_search([[0.0]], [5], [[1.0], [1.0]], [[1.0], [1.0]], [5, 5], measure="euclidean")
    assert search.ranks.tolist() == [1]  # there is one identity
    found = search.dir_at_fpir(0.5)
    assert (found["dir"], found["fpir"]) == (0, 0)
    assert search.metrics(found["threshold"])["fpir"] == 0


def test_rates_of_no_probes_are_none():
    none = np.zeros((0, 1))
    search = open_set_search(none, [], none, [[1.0]], [5], measure="dot")
    found = search.metrics(0.0)
    for name in ("fnir_at_rank_1", "fnir_at_any_rank", "fpir", "rank_1_rate"):
        assert found[name] is None
    assert found["gallery_size"] == 1
    assert found["by_identity"]["probes"] == []
    assert search.dir_at_fpir(0.5)["dir"] is None
    strangers = open_set_search(none, [], [[1.0]] * 9, [[1.0]], [5], measure="dot")
    for without in (search, strangers):
        curve = without.curve()
        assert [curve[name].size for name in ("thresholds", "fpir", "fnir_at_rank_1", "fnir_at_any_rank")] == [0] * 4
    assert strangers.dir_at_fpir(0.5)["dir"] is None
    with pytest.raises(InputError, match="^fpir: expected a number between 0 and 1, got 1.0$"):
        strangers.dir_at_fpir(1.0)
    with pytest.raises(InputError, match="^rank: expected at least 1, got 0$"):
        strangers.dir_at_fpir(0.5, rank=0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"probe_identities": [1, 9]}, "^probe_identities: .* got 9; pass its images as unknown_embeddings$"),
        ({"unknown_identities": [2]}, "^unknown_identities: expected none of the gallery, got 2$"),
        ({"unknown_identities": [4, 5]}, "^unknown_identities: expected an integer or a name for each of 1 rows"),
        ({"gallery_embeddings": np.zeros((0, 2)), "gallery_identities": []}, "^gallery_embeddings: expected at least"),
        ({"unknown_embeddings": [[1.0]]}, r"^unknown_embeddings: expected rows of size 2, got shape \(1, 1\)$"),
        ({"threshold": float("nan")}, "^threshold: expected a number"),
    ],
)
def test_wrong_input_is_an_error_that_names_the_argument(changed, message):
    given = {
        "probe_embeddings": np.eye(2),
        "probe_identities": [1, 2],
        "unknown_embeddings": np.ones((1, 2)),
        "gallery_embeddings": np.eye(2),
        "gallery_identities": [1, 2],
        "threshold": 0.5,
    }
    with pytest.raises(InputError, match=message):
        open_set_metrics(measure="cosine", **given | changed)
