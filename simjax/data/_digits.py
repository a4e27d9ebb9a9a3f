"""The data set that needs no download: scikit-learn's 1,797 handwritten digits of 8x8 pixels."""

import numpy as np

from simjax.data._dataset import SEED, TEST_FRACTION, Dataset, concatenate, select


def load_digits(split: str) -> Dataset:
    """The embedded digits: values 0..16 scaled to 0..255, 1,347 training and 450 test images, stratified.

    Args:
        split: "train", "test" or "all".
    """
    from sklearn import datasets
    from sklearn.model_selection import train_test_split

    pixels, target = datasets.load_digits(return_X_y=True)
    images = np.rint(pixels * 255 / 16).astype(np.uint8).reshape(-1, 8, 8, 1)
    digits = Dataset(images, target.astype(np.int32), tuple(map(str, range(10))))
    index = train_test_split(np.arange(len(target)), test_size=TEST_FRACTION, stratify=target, random_state=SEED)
    train, test = (select(digits, np.asarray(part)) for part in index)
    return {"train": train, "test": test, "all": concatenate([train, test])}[split]
