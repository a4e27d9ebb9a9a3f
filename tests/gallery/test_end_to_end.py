"""From a training to a calibrated gallery of digits, all in files."""

import numpy as np
import pytest
from PIL import Image

from simjax.data import load
from simjax.encoder import find_identities, load_encoder
from simjax.gallery import Gallery
from simjax.train import train
from simjax.train._settings import from_dict


def write_folder(folder, images, labels, digits):
    """Write images as files, one sub-folder for each digit."""
    for digit in digits:
        (folder / f"digit {digit}").mkdir(parents=True)
        for i in np.flatnonzero(labels == digit):
            Image.fromarray(images[i, ..., 0]).save(folder / f"digit {digit}" / f"{i}.png")
    return folder


@pytest.mark.slow
def test_enrolled_digits_are_identified_and_others_are_unknown(tmp_path):
    settings = {"model": "cnn", "steps": 150, "objective": "supervised_contrastive", "embedding_size": 32}
    train(from_dict(settings), tmp_path / "run")
    digits = load("digits", "test")
    images, labels = digits.images, digits.labels
    enrolled = write_folder(tmp_path / "enrolled", images[:90], labels[:90], range(6))
    strangers = write_folder(tmp_path / "strangers", images, labels, (6, 7))
    with Gallery.create(tmp_path / "gallery", load_encoder(tmp_path / "run")) as gallery:
        gallery.add(*find_identities(enrolled))
        gallery.calibrate(*find_identities(strangers))
    with Gallery.open(tmp_path / "gallery") as gallery:
        rest, rest_labels = images[90:], labels[90:]
        known = gallery.identify(rest[rest_labels < 6], fpir=0.05)
        unknown = gallery.identify(rest[rest_labels > 7], fpir=0.05)
        truth = [f"digit {label}" for label in rest_labels[rest_labels < 6]]
        assert np.mean([f.closest == name for f, name in zip(known, truth, strict=True)]) > 0.97
        assert np.mean([f.identity == name for f, name in zip(known, truth, strict=True)]) > 0.8
        assert np.mean([f.identity is not None for f in unknown]) < 0.25
        (found,) = gallery.search(tmp_path / "strangers" / "digit 6", 1)[:1]
        assert str(found.query).endswith(".png")
        assert str(found.hits[0].path).startswith(str(tmp_path / "enrolled"))
