"""Probabilities and thresholds come from the calibration, and the threshold of a search follows the gallery."""

from pathlib import Path

import numpy as np
import pytest

from simjax.core import InputError
from simjax.evaluate import Calibration
from simjax.gallery import Gallery, _thresholds, duplicates_threshold
from tests.gallery.conftest import SIZE, build_encoder


def people(random, n, images, spread=0.03):
    """Embeddings of n people, [n * images, SIZE], and their names."""
    centres = random.normal(size=(n, 1, SIZE))
    rows = centres + spread * random.normal(size=(n, images, SIZE))
    return rows.reshape(-1, SIZE).astype(np.float32), [f"person {i}" for i in range(n) for _ in range(images)]


def calibration_of(gallery):
    assert gallery.calibration is not None
    return gallery.calibration


@pytest.fixture
def strangers(random):
    rows, names = people(random, 40, 4)
    return rows, [f"stranger {name}" for name in names]


@pytest.fixture
def enrolled(gallery, random, strangers):
    """A calibrated gallery with one image of 9 people, and another image of each."""
    rows, names = people(random, 9, 2)
    gallery.add(rows[::2], names[::2])
    gallery.calibrate(*strangers)
    return gallery, rows[1::2], names[1::2]


def test_known_people_are_identified_and_strangers_are_not(enrolled, strangers, random):
    gallery, probes, names = enrolled
    found = gallery.identify(probes, fpir=0.05)
    assert [f.identity for f in found] == names
    assert [f.closest for f in found] == names
    assert [f.id for f in found] == list(range(1, 10))
    expected = Calibration.fit(*strangers, measure="cosine")
    threshold = expected.search_threshold(0.05, gallery._store.contents().embeddings)
    assert {f.threshold for f in found} == {threshold.value}
    np.testing.assert_allclose([f.probability for f in found], expected.probability([f.score for f in found]))
    assert gallery.search_threshold(0.05) == threshold
    accepted = [f.identity is not None for f in gallery.identify(strangers[0], fpir=0.05)]
    assert np.mean(accepted) == threshold.rate <= 0.05


def test_the_threshold_follows_the_gallery(tmp_path, random, strangers, monkeypatch):
    searched = []
    closest = _thresholds.closest
    monkeypatch.setattr(_thresholds, "closest", lambda *a: searched.append(len(a[2])) or closest(*a))
    rows, names = people(random, 12, 1)
    with Gallery.create(tmp_path / "gallery", build_encoder(measure="euclidean")) as gallery:
        ids = gallery.add(rows[:9], names[:9])
        gallery.calibrate(*strangers)

        def check(enrolled):
            distances = np.linalg.norm(calibration_of(gallery).embeddings[:, None] - enrolled, axis=2)
            expected = np.sort(distances.min(axis=1))[len(distances) // 10 - 1]  # one in ten passes
            found = gallery.search_threshold(0.1)
            assert found.value == pytest.approx(expected, rel=1e-5)
            assert found.gallery_size == len(enrolled)

        check(rows[:9])
        gallery.add(rows[9:11], names[9:11])
        check(rows[:11])
        gallery.add(rows[11:])  # without an identity
        check(rows[:11])
        assert searched == [9, 2]  # only what is new
        gallery.update(12, identity="late")
        check(rows)
        gallery.remove(ids[3])
        check(np.delete(rows, 3, axis=0))
        gallery.calibrate(strangers[0][:130], strangers[1][:130])
        check(np.delete(rows, 3, axis=0))
        assert searched == [9, 2, 12, 11, 11]


def test_a_calibration_is_stored_and_seen_by_other_readers(enrolled, strangers):
    gallery, probes, _ = enrolled
    with Gallery.open(Path(gallery.address), encoder=gallery.encoder) as reader:
        np.testing.assert_array_equal(calibration_of(reader).embeddings, strangers[0])
        assert reader.verify(probes[:1], probes[:1], fmr=0.01) == gallery.verify(probes[:1], probes[:1], fmr=0.01)
        gallery.calibrate(strangers[0][:100], strangers[1][:100], method="isotonic")
        assert (len(calibration_of(reader).embeddings), calibration_of(reader).method) == (100, "isotonic")


def test_two_images_are_verified(enrolled):
    gallery, probes, _ = enrolled
    same, different = gallery.verify(1, probes[:1], fmr=0.01), gallery.verify(probes[3:4], 1, fmr=0.01)
    threshold = calibration_of(gallery).pair_threshold(0.01).value
    assert (same.same, different.same) == (True, False)
    assert same.score > threshold > different.score
    assert same.threshold == threshold
    assert same.probability > 0.9 > 0.5 > different.probability
    assert gallery.verify(1, probes[:1]).fmr == 0.001
    with pytest.raises(InputError, match="b: expected one image or id, got 2"):
        gallery.verify(1, probes[:2])
    with pytest.raises(InputError, match="fmr"):
        gallery.verify(1, 2, fmr=1e-9)


def test_without_a_calibration_there_are_scores_and_a_hint_but_no_threshold(gallery, rows):
    gallery.add(rows, [f"{i}" for i in range(13)])
    with pytest.warns(UserWarning, match=r"not calibrated: .*`gallery\.calibrate\(images, identities\)`"):
        (found,) = gallery.identify(rows[3:4] * 2)
    assert (found.identity, found.probability, found.threshold, found.closest) == (None, None, None, "3")
    assert found.score == pytest.approx(1)
    with pytest.warns(UserWarning, match="not calibrated"):
        verified = gallery.verify(1, 1)
    assert verified.score == pytest.approx(1)
    assert verified[1:] == (None, None, None, None)
    assert gallery.search(1, 1)[0].hits[0].probability is None
    with pytest.raises(InputError, match="not calibrated"):
        gallery.search_threshold()


def test_items_without_an_identity_do_not_identify(enrolled, rows):
    gallery, probes, names = enrolled
    gallery.add(probes)
    assert [f.identity for f in gallery.identify(probes, fpir=0.05)] == names
    gallery.remove(range(1, 10))
    assert gallery.identify(probes[:1]) == [(0, None, None, None, None, None, None, None)]
    assert len(gallery.info()["thresholds"]) == 1  # none of a search


def test_enrolled_identities_do_not_calibrate(enrolled, strangers):
    gallery, _, _ = enrolled
    rows, names = strangers
    with pytest.raises(InputError, match="expected no enrolled identities, got person 1, person 2"):
        gallery.calibrate(rows[:4], ["person 1", "person 1", "person 2", "x"])
    gallery.add(rows[:1], names[:1])
    with pytest.warns(UserWarning, match=r"too strict: .* enrolled now \(stranger person 0\)"):
        gallery.identify(rows[:1], fpir=0.05)


def test_a_description_has_the_thresholds(enrolled):
    gallery, _, _ = enrolled
    pair, search = gallery.info()["thresholds"]
    assert (pair["wanted"], pair["gallery_size"], search["wanted"], search["gallery_size"]) == (0.001, None, 0.01, 9)
    assert pair["value"] == calibration_of(gallery).pair_threshold(0.001).value
    assert search["text"] == str(gallery.search_threshold(0.01))
    assert gallery.info()["calibration"] == {"of": "gallery", "images": 160, "identities": 40}


def test_one_false_duplicate_is_expected_by_default(enrolled):
    gallery, probes, _ = enrolled
    gallery.add(probes)
    calibration, pairs = calibration_of(gallery), 160 * 156 / 2  # of different identities: 40 with 4 images each
    threshold = calibration.pair_threshold(0.001)
    assert gallery.duplicates() == gallery.duplicates(threshold.value) != []
    for images in (0, 1, 2, 18):  # one false pair would be more than 0.001
        assert duplicates_threshold(calibration, images) == threshold
    found = duplicates_threshold(calibration, 100)
    assert found.wanted == 1 / 4950
    assert found.rate * 4950 <= 1
    for images in (160, 100_000):  # more pairs than the calibration has
        assert duplicates_threshold(calibration, images).rate == 1 / pairs


def test_the_calibration_of_the_encoder_is_used_by_a_gallery_without_one(tmp_path, strangers, rows):
    calibration = Calibration.fit(*strangers, measure="cosine")
    with Gallery.create(tmp_path / "gallery", build_encoder(calibration=calibration)) as gallery:
        gallery.add(rows, "someone")
    with Gallery.open(tmp_path / "gallery") as gallery:
        np.testing.assert_array_equal(calibration_of(gallery).embeddings, strangers[0])
        assert gallery.identify(rows[:1])[0].threshold == calibration.search_threshold(0.01, rows).value
        assert gallery.info()["calibration"] == {"of": "encoder", "images": 160, "identities": 40}
