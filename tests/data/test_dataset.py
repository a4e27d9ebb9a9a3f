import numpy as np

from simjax.data._dataset import stratified_split


def test_every_class_is_cut_75_to_25():
    labels = np.repeat([0, 1, 2], [40, 8, 101])
    train, test = stratified_split(labels)
    assert np.bincount(labels[test]).tolist() == [10, 2, 25]
    assert sorted([*train, *test]) == list(range(149))


def test_small_classes_keep_a_training_image_and_give_a_test_image_if_they_have_two():
    labels = np.repeat([0, 1, 2, 3], [1, 2, 3, 4])
    train, test = stratified_split(labels)
    assert np.bincount(labels[train]).tolist() == [1, 1, 2, 3]
    assert np.bincount(labels[test], minlength=4).tolist() == [0, 1, 1, 1]


def test_the_split_never_changes_and_is_not_the_first_quarter():
    labels = np.zeros(100, int)
    assert np.array_equal(stratified_split(labels)[1], stratified_split(labels)[1])
    assert not np.array_equal(stratified_split(labels)[1], np.arange(25))


def test_no_labels_give_two_empty_parts():
    assert [len(part) for part in stratified_split(np.zeros(0, int))] == [0, 0]
