"""Copies of a gallery are of one of its transactions, with the calibration that it then had."""

import pytest

from simjax.core import InputError
from simjax.gallery import Gallery, _copy


@pytest.mark.parametrize("change", ["add", "calibrate"])
def test_a_change_while_the_place_of_a_copy_is_created_is_noticed(gallery, rows, random, tmp_path, monkeypatch, change):
    gallery.add(rows, "a")
    create_store = _copy.create_store

    def change_and_create(*arguments, **options):
        if change == "add":
            gallery.remove(gallery.add(rows[:1]))
        else:
            gallery.calibrate(random.normal(size=(8, 5)), list("bbccddee"))
        return create_store(*arguments, **options)

    monkeypatch.setattr(_copy, "create_store", change_and_create)
    with pytest.raises(InputError, match="was changed while it was copied; copy it again"):
        gallery.copy(tmp_path / "copy")
    with Gallery.open(tmp_path / "copy") as empty:
        assert len(empty) == 0
    monkeypatch.undo()
    with gallery.copy(tmp_path / "copy") as copy:  # again, now to an empty gallery
        assert copy.info() | {"store": None} == gallery.info() | {"store": None}
        assert copy._store.properties()["last_id"] == gallery._store.properties()["last_id"]


def test_a_copy_never_has_the_calibration_of_another_gallery(gallery, encoder, rows, random, tmp_path):
    gallery.add(rows, "a")
    with Gallery.create(tmp_path / "calibrated", encoder) as calibrated:
        calibrated.calibrate(random.normal(size=(8, 5)), list("bbccddee"))
    with pytest.raises(InputError, match="exists and is not an empty gallery of this encoder"):
        gallery.copy(tmp_path / "calibrated")
    gallery.calibrate(random.normal(size=(6, 5)), list("xxyyzz"))
    with gallery.copy(tmp_path / "calibrated") as copy:
        assert copy.info() | {"store": None} == gallery.info() | {"store": None}
