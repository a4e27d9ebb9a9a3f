"""The arrays of samples.npz: which pairs, mistakes, confusions and images are selected, and the histogram of scores."""

import numpy as np
import pytest

from simjax import similarity
from simjax.core import InputError
from simjax.data import Dataset
from simjax.train import _samples as samples
from simjax.train._samples import ScoredPairs


def dataset(labels, shape=(2, 3, 1)):
    """Return images whose pixels are their numbers, modulo 256."""
    labels = np.asarray(labels, np.int32)
    pixels = (np.arange(len(labels)) % 256).astype(np.uint8).reshape(-1, 1, 1, 1)
    images = np.ascontiguousarray(np.broadcast_to(pixels, (len(labels), *shape)))
    return Dataset(images, labels, tuple(map(str, range(labels.max() + 1))))


def scored(scores, same, step=2):
    """Return pairs (0, 1), (step, step + 1), ... with the given scores."""
    first = step * np.arange(len(scores))
    index = np.stack([first, first + 1], axis=1).astype(np.int32)
    return ScoredPairs(index, np.asarray(scores, np.float32), np.asarray(same, bool))


def selected(found, threshold, higher_is_closer):
    by_kind = samples.select_pairs(found, threshold, higher_is_closer=higher_is_closer)
    rows = np.concatenate([*by_kind.values()])
    assert len(np.unique(rows)) == len(rows)
    return {kind: rows.tolist() for kind, rows in by_kind.items()}


@pytest.mark.parametrize("sign", [1, -1])
def test_the_worst_mistakes_come_first_whether_the_measure_is_a_similarity_or_a_distance(sign):
    scores = sign * np.array([0.9, 0.5, 0.4, 0.1, 0.8, 0.5, 0.7, 0.2])
    found = selected(scored(scores, [1, 1, 1, 1, 0, 0, 0, 0]), sign * 0.5, sign == 1)
    assert found["false match"] == [4, 6, 5]  # a score equal to the threshold is accepted
    assert found["false non-match"] == [3, 2]
    assert sorted(found["random"]) == [0, 1, 7]


def test_an_image_is_in_one_wrong_pair_of_each_kind_only():
    chain = scored([0.9, 0.8, 0.7, 0.2, 0.1], [False, False, False, True, True], step=1)  # (0, 1), (1, 2), ...
    found = selected(chain, 0.5, True)
    assert found["false match"] == [0, 2]  # (1, 2) has an image of (0, 1)
    assert found["false non-match"] == [4]


def test_a_threshold_between_two_float32_scores_is_not_rounded():
    score = np.float32(0.1)
    found = scored([score, score], [False, True])
    assert selected(found, float(score), True)["false match"] == [0]
    assert selected(found, float(score) + 1e-12, True)["false non-match"] == [1]


def test_each_kind_of_mistakes_has_six_pairs_and_half_of_the_random_pairs_are_of_one_class(random):
    same = np.arange(200) % 2 == 0
    found = scored(random.uniform(size=200), same)
    pairs = selected(found, 0.5, True)
    is_false_match = ~same & (found.scores >= 0.5)
    closest = np.argsort(-np.where(is_false_match, found.scores, -1))
    assert pairs["false match"] == closest[:6].tolist()
    farthest = np.argsort(np.where(same & (found.scores < 0.5), found.scores, 2))
    assert pairs["false non-match"] == farthest[:6].tolist()
    assert same[pairs["random"]].tolist() == [True] * 6 + [False] * 6
    assert selected(found, 0.5, True) == pairs  # the choice is fixed


def test_without_a_threshold_and_with_few_pairs_of_a_kind_random_pairs_fill_the_page(random):
    same = np.arange(30) < 2
    found = selected(scored(random.uniform(size=30), same), None, True)
    assert found["false match"] == found["false non-match"] == []
    assert len(found["random"]) == 12
    assert {0, 1} < set(found["random"])
    assert selected(scored([0.1, 0.2], [True, False]), None, True)["random"] == [0, 1]


def test_pairs_have_their_images_labels_scores_and_probabilities():
    test = dataset([0, 0, 1, 1])
    found = scored([1.0, 3.0, 2.0], [True, False, True], step=1)
    arrays = samples.pairs(test, found, 2.5, (2.0, -4.0), higher_is_closer=False)
    order = arrays["pair_index"][:, 0]
    assert sorted(order) == [0, 1, 2]
    np.testing.assert_array_equal(arrays["pair_index"][:, 1], order + 1)
    np.testing.assert_array_equal(arrays["pair_images"][:, :, 0, 0, 0], arrays["pair_index"])
    np.testing.assert_array_equal(arrays["pair_labels"], test.labels[arrays["pair_index"]])
    np.testing.assert_array_equal(arrays["pair_scores"], found.scores[order])
    expected = 1 / (1 + np.exp(2 * found.scores[order] - 4))  # of one class: near 1 at a small distance
    np.testing.assert_allclose(arrays["pair_probability"], expected, rtol=1e-6)
    assert arrays["pair_index"].dtype == np.int32
    without = samples.pairs(test, found, None, None, higher_is_closer=False)
    assert set(arrays) - set(without) == {"pair_probability"}


def test_the_histogram_counts_both_kinds_from_the_smallest_to_the_largest_score():
    scores = [0.0, 6.0, 0.05, 5.95, 3.05, 3.05, np.inf, np.nan]
    found = samples.score_histogram(scored(scores, [1, 1, 0, 0, 1, 0, 1, 0]))
    np.testing.assert_allclose(found["score_edges"], np.linspace(0, 6, 61))
    same, different = found["score_same"], found["score_different"]
    assert np.flatnonzero(same).tolist() == np.flatnonzero(different).tolist() == [0, 30, 59]
    assert same.sum() == different.sum() == 3
    constant = samples.score_histogram(scored([2.0, 2.0, 2.0], [1, 0, 0]))
    assert (constant["score_same"].sum(), constant["score_different"].sum()) == (1, 2)
    assert samples.score_histogram(scored([np.nan], [True])) == {}


def test_the_most_confident_mistakes_come_first():
    test = dataset([0, 1, 2, 0, 1, 2])
    predicted = np.array([0, 2, 1, 1, 0, 2])
    found = samples.mistakes(test, predicted, np.array([0.9, 0.5, 0.8, 0.5, 0.6, 0.7]))
    assert found["mistake_index"].tolist() == [2, 4, 1, 3]  # equal confidences in the order of the data
    assert found["mistake_images"][:, 0, 0, 0].tolist() == [2, 4, 1, 3]
    assert found["mistake_labels"].tolist() == [2, 1, 1, 0]
    assert found["mistake_predicted"].tolist() == [1, 0, 2, 1]
    np.testing.assert_allclose(found["mistake_confidence"], [0.8, 0.6, 0.5, 0.5])
    assert {found[f"mistake_{name}"].dtype.name for name in ("index", "labels", "predicted")} == {"int32"}


def test_mistakes_without_confidence_are_in_the_order_of_the_data():
    test = dataset(np.arange(50) % 2)
    found = samples.mistakes(test, 1 - test.labels, None)
    assert found["mistake_index"].tolist() == list(range(24))
    assert np.isnan(found["mistake_confidence"]).all()


def test_the_most_frequent_confusions_have_an_image_of_each_class():
    labels = [0, 0, 0, 1, 1, 2, 2, 2]
    predicted = np.array([1, 0, 1, 0, 1, 1, 1, 1])
    found = samples.confusions(dataset(labels), predicted)
    assert found["confusion_true"].tolist() == [2, 0, 1]
    assert found["confusion_predicted"].tolist() == [1, 1, 0]
    assert found["confusion_count"].tolist() == [3, 2, 1]
    assert found["confusion_index"].tolist() == [[5, 4], [0, 4], [3, 1]]  # the second image is classified correctly
    np.testing.assert_array_equal(found["confusion_images"][..., 0, 0, 0], found["confusion_index"])
    assert {found[f"confusion_{name}"].dtype.name for name in ("true", "predicted", "count", "index")} == {"int32"}


def test_a_confusion_shows_any_image_of_a_class_that_is_never_recognized_and_none_of_a_class_without_images():
    test = dataset([0, 2, 2])
    found = samples.confusions(test, np.array([2, 0, 1]))
    assert found["confusion_index"].tolist() == [[0, 1], [1, 0]]
    assert found["confusion_predicted"].tolist() == [2, 0]  # no test image is of class 1


def test_at_most_twelve_confusions_are_shown():
    labels = np.repeat(np.arange(20), 3)
    found = samples.confusions(dataset(labels), (labels + 1) % 20)
    assert found["confusion_true"].tolist() == list(range(12))


def test_without_mistakes_nothing_is_stored():
    test = dataset([0, 1])
    assert samples.mistakes(test, test.labels, np.ones(2)) == {}
    assert samples.confusions(test, test.labels) == {}
    assert samples.confusions(test, np.array([2, 1])) == {}  # the only mistake is a class without test images


def test_neighbours_are_named_by_the_numbers_of_their_images():
    test = dataset([0, 0, 1, 1])
    embeddings = np.array([[0.0], [1.0], [5.0], [7.0]], np.float32)
    found = samples.neighbours(test, embeddings, similarity.measure("euclidean"))
    order = np.argsort(found["query_index"])
    assert found["query_index"][order].tolist() == [0, 1, 2, 3]
    assert found["neighbour_index"][order].tolist() == [[1, 2, 3], [0, 2, 3], [3, 1, 0], [2, 1, 0]]
    assert found["neighbour_scores"][order].tolist() == [[1, 5, 7], [1, 4, 6], [2, 4, 5], [2, 6, 7]]
    np.testing.assert_array_equal(found["query_images"][:, 0, 0, 0], found["query_index"])
    np.testing.assert_array_equal(found["neighbour_images"][..., 0, 0, 0], found["neighbour_index"])
    np.testing.assert_array_equal(found["neighbour_labels"], test.labels[found["neighbour_index"]])
    with pytest.raises(InputError, match="only one test image"):
        samples.neighbours(dataset([0]), embeddings[:1], similarity.measure("euclidean"))


def test_images_with_a_neighbour_of_another_class_come_first(random):
    labels = np.repeat(np.arange(20), 10)
    embeddings = np.eye(20, dtype=np.float32)[labels] + 0.01 * random.normal(size=(200, 20)).astype(np.float32)
    mistaken = np.arange(0, 140, 20)  # 7 images, of the even classes
    embeddings[mistaken] = embeddings[mistaken + 10]
    test = dataset(labels)
    found = samples.neighbours(test, embeddings, similarity.measure("euclidean"))
    is_wrong = found["neighbour_labels"][:, 0] != found["query_labels"]
    assert is_wrong.tolist() == [True] * 5 + [False] * 5
    assert len(np.unique(found["query_index"])) == 10


def test_the_similarity_of_classes_is_in_the_measure_of_the_encoder_and_missing_without_pairs():
    test = dataset([0, 0, 1, 3])
    embeddings = np.array([[0.0], [1.0], [4.0], [6.0]], np.float32)
    found = samples.class_similarity(test, embeddings, similarity.measure("euclidean"))["class_similarity"]
    nan = np.nan
    expected = [[1, 3.5, nan, 5.5], [3.5, nan, nan, 2], [nan, nan, nan, nan], [5.5, 2, nan, nan]]
    np.testing.assert_allclose(found, expected)


def test_the_similarity_of_many_classes_is_not_computed():
    for classes, stored in ((40, ["class_similarity"]), (41, [])):
        test = dataset(np.arange(classes))
        assert list(samples.class_similarity(test, np.ones((classes, 1)), similarity.measure("euclidean"))) == stored


@pytest.mark.parametrize(
    ("shape", "small"),
    [
        ((96, 64, 3), (32, 21, 3)),
        ((64, 128, 1), (16, 32, 1)),
        ((8, 32, 3), (8, 32, 3)),
        ((200, 2, 1), (32, 1, 1)),
    ],
)
def test_the_map_has_small_images_of_the_same_aspect_ratio(shape, small):
    found = samples.image_map(dataset(np.zeros(5), shape).images)
    assert found["map_index"].tolist() == list(range(5))
    np.testing.assert_array_equal(found["map_images"], np.arange(5).reshape(-1, 1, 1, 1) * np.ones((5, *small)))


def test_shrinking_averages_areas_of_each_channel(random):
    images = random.integers(0, 256, (1, 64, 32, 3), dtype=np.uint8)
    found = samples.image_map(images)["map_images"]
    means = images.reshape(32, 2, 16, 2, 3).mean((1, 3))
    assert np.abs(found[0] - means).max() <= 1  # rounding


def test_the_map_has_a_fixed_sample_of_many_images():
    images = dataset(np.zeros(1_500), (1, 1, 1)).images
    found, again = samples.image_map(images), samples.image_map(images)
    index = found["map_index"]
    assert len(index) == 1_000
    assert (np.diff(index) > 0).all()
    assert index.max() >= 1_400
    np.testing.assert_array_equal(index, again["map_index"])
    np.testing.assert_array_equal(found["map_images"][:, 0, 0, 0], index % 256)
