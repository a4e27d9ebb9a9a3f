"""Galleries are created and replaced whole, also by several processes at once and by processes that are killed."""

import contextlib

import numpy as np
import pytest

from simjax.cli import main as run_command
from simjax.core import InputError
from simjax.encoder import load_encoder
from simjax.gallery import Gallery, _folder_store
from simjax.gallery._folder import check_replaceable
from simjax.gallery._folder_store import FolderStore
from tests.cli.runs import image_folder
from tests.gallery.test_durability import check_whole_groups
from tests.gallery.writers import as_items, embeddings_of

ROUNDS = 5


@pytest.fixture
def saved(encoder, tmp_path):
    encoder.save(tmp_path / "encoder")
    return tmp_path / "encoder"


def identities_of(path):
    with Gallery.open(path) as gallery:
        return [item.identity for item in gallery.items()]


def test_of_two_processes_that_create_a_gallery_one_is_refused(writers, saved, tmp_path):
    numbers = [writers.start("create_at_once", tmp_path, saved, *names, ROUNDS) for names in ("ab", "ba")]
    results = dict(zip("ab", map(writers.result, numbers), strict=True))
    for number in range(ROUNDS):
        path = tmp_path / f"gallery-{number}"
        (winner,) = (name for name in "ab" if results[name][number] == "no error: None")
        (loser,) = set("ab") - {winner}
        assert results[loser][number].startswith(f"{path} exists; choose another folder")
        assert set(identities_of(path)) == {winner}
        check_whole_groups(path)
    assert not list(tmp_path.glob(".*"))


def test_of_two_processes_that_save_an_encoder_one_is_refused(writers, saved, tmp_path):
    numbers = [writers.start("save_at_once", tmp_path, saved, *names, ROUNDS) for names in ("ab", "ba")]
    for number, found in enumerate(zip(*map(writers.result, numbers), strict=True)):
        path = tmp_path / f"encoder-{number}"
        assert sorted(found) == [f"{path} exists; choose another folder, or pass `overwrite=True`", "no error: None"]
        load_encoder(path)


def test_a_gallery_that_was_replaced_by_another_process_is_replaced_after_its_transaction(
    writers, path, saved, tmp_path
):
    (tmp_path / "signals").mkdir()
    numbers = [
        writers.start(task, path, saved, tmp_path / "signals") for task in ("overwrite_slowly", "overwrite_late")
    ]
    assert [writers.result(number) for number in numbers] == ["no error: [1, 2, 3, 4, 5, 6]", "done"]
    check_whole_groups(path)
    assert set(identities_of(path)) == {"late0", "late1"}


def test_a_folder_that_is_moved_during_a_transaction_is_written_in_neither_place(path, encoder, tmp_path):
    def batches():
        yield as_items("a")
        path.rename(tmp_path / "moved")
        with Gallery.create(path, encoder) as other:
            other.add(embeddings_of("other"), "other")
        yield as_items("b")

    with contextlib.closing(FolderStore(path, 5.0)) as store, pytest.raises(InputError, match="replaced by another"):
        store.add(batches())
    assert set(identities_of(path)) == {"other"}
    check_whole_groups(path)
    assert identities_of(tmp_path / "moved") == []


def test_a_reader_gets_the_embeddings_of_its_own_ids_while_the_gallery_is_replaced(path, encoder, rows, monkeypatch):
    with Gallery.open(path) as gallery:
        gallery.add(rows[:5])
        monkeypatch.setattr(gallery._store, "_contents", None)
        file_number = _folder_store.file_number

        def replace_then(database):  # at the moment between the check of the inode and the next statement
            monkeypatch.setattr(_folder_store, "file_number", file_number)
            found = file_number(database)
            with pytest.raises(InputError, match="another process is writing"):
                Gallery.create(path, encoder, overwrite=True, timeout=0.1)
            return found

        monkeypatch.setattr(_folder_store, "file_number", replace_then)
        contents = gallery._store.contents()
        assert _folder_store.file_number is file_number
        np.testing.assert_array_equal(contents.embeddings, rows[:5])
        Gallery.create(path, encoder, overwrite=True, timeout=0.1).close()
        for read in (
            gallery._store.contents,
            gallery.count_identities,
            lambda: gallery.get(1),
            lambda: gallery.encoder,
        ):
            with pytest.raises(InputError, match="was replaced by another gallery"):
                read()


def test_a_replacement_that_fails_or_is_killed_keeps_the_gallery(writers, path, saved, encoder, tmp_path):
    image_folder(tmp_path / "images", each=1)
    with Gallery.open(path) as gallery:
        gallery.add(embeddings_of("old"), "old")
    writers.wait(writers.start("overwrite_and_die", path, saved, tmp_path / "images"))
    assert set(identities_of(path)) == {"old"}
    check_whole_groups(path)
    assert [left.suffix for left in tmp_path.glob(".*")] == [".part"]
    with pytest.raises(InputError, match="expected 3, one for each image"):
        Gallery.create(path, encoder, embeddings_of("new"), ["a", "b"], overwrite=True)
    assert set(identities_of(path)) == {"old"}
    with Gallery.create(path, encoder, embeddings_of("new"), "new", overwrite=True) as new:
        assert {item.identity for item in new.items()} == {"new"}
    assert not list(tmp_path.glob(".*"))  # the folder of the killed process is deleted


def test_images_are_not_read_for_a_place_that_is_taken_and_unreadable_ones_create_nothing(path, encoder, tmp_path):
    def images():
        raise AssertionError("the images were read")
        yield

    with pytest.raises(InputError, match="exists; choose another folder, or create it with `overwrite=True`"):
        Gallery.create(path, encoder, images())
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.png").touch()
    with pytest.raises(InputError, match=r"contains holiday\.png, which no gallery wrote"):
        Gallery.create(tmp_path / "photos", encoder, images(), overwrite=True)
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(InputError, match=r"text\.png: "):
        Gallery.create(tmp_path / "new", encoder, [tmp_path / "text.png"])
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("entry", "unknown"),
    [
        ("encoder/thesis.txt", "encoder/thesis.txt"),
        ("encoder/calibration.safetensors/thesis.txt", "encoder/calibration.safetensors"),
        ("embeddings-old.f32", "embeddings-old.f32"),
        ("embeddings-1.f32/thesis.txt", "embeddings-1.f32"),
        ("items.sqlite-journal/thesis.txt", "items.sqlite-journal"),
        ("notes.txt", "notes.txt"),
    ],
)
def test_a_folder_with_other_files_is_not_overwritten(path, encoder, entry, unknown):
    (path / entry).parent.mkdir(exist_ok=True)
    (path / entry).write_text("mine")
    with pytest.raises(InputError, match=f"contains {unknown}, which no gallery wrote: not overwritten"):
        Gallery.create(path, encoder, overwrite=True)
    assert (path / entry).read_text() == "mine"


def test_the_journal_of_another_process_is_no_foreign_file(writers, path):
    number = writers.start("add_and_remove", path, 0)
    try:
        for _ in range(3_000):  # about 3% of these calls found a journal that was then deleted
            check_replaceable(path, overwrite=True)
    finally:
        writers.kill(number)


def test_others_write_while_the_encoder_is_loaded(path, encoder, rows, monkeypatch):
    def add_and_load(folder):
        with Gallery.open(path, timeout=0.1) as other:
            other.add(rows)
        return load_encoder(folder)

    monkeypatch.setattr(_folder_store, "load_encoder", add_and_load)
    with Gallery.open(path) as gallery:
        assert gallery.encoder.fingerprint == encoder.fingerprint
        assert len(gallery) == 13


@pytest.mark.parametrize("name", ["encoder", "embeddings-0.f32", "items.sqlite"])
def test_links_and_folders_without_a_database_are_not_overwritten(path, encoder, tmp_path, name):
    elsewhere = (path / name).rename(tmp_path / "elsewhere")
    (path / name).symlink_to(elsewhere)
    with pytest.raises(InputError, match=f"contains {name}, which no gallery wrote"):
        Gallery.create(path, encoder, overwrite=True)
    (path / "items.sqlite").unlink()
    with pytest.raises(InputError, match="which no gallery wrote"):
        Gallery.create(path, encoder, overwrite=True)


def test_a_database_that_is_a_link_is_not_written(path, encoder, rows, tmp_path):
    with Gallery.create(tmp_path / "victim", encoder, rows):
        pass
    before = (tmp_path / "victim" / "items.sqlite").read_bytes()
    (path / "items.sqlite").unlink()
    (path / "items.sqlite").symlink_to(tmp_path / "victim" / "items.sqlite")
    with pytest.raises(InputError, match=r"damaged: items\.sqlite is a link"), Gallery.open(path) as gallery:
        gallery.add(rows)
    assert (tmp_path / "victim" / "items.sqlite").read_bytes() == before


def test_a_commit_waits_for_the_disk(gallery):
    assert gallery._store._connection.execute("PRAGMA synchronous").fetchone() == (3,)  # EXTRA


def test_a_name_may_be_as_long_as_the_file_system_allows(encoder, rows, tmp_path):
    path = tmp_path / ("ü" * 127)  # 254 bytes
    for overwrite in (False, True):
        with Gallery.create(path, encoder, rows, overwrite=overwrite) as gallery:
            assert len(gallery) == 13
    encoder.save(tmp_path / ("x" * 255))
    assert load_encoder(tmp_path / ("x" * 255)).fingerprint == encoder.fingerprint


@pytest.mark.parametrize("command", ["info", "search", "duplicates", "list"])
def test_a_path_that_is_too_long_is_one_line_for_every_command(command, capsys):
    with pytest.raises(SystemExit, match="2"):
        run_command(["gallery", command, "x" * 300, *(["y.png"] if command == "search" else [])])
    assert capsys.readouterr().err.startswith("error: 'xxx")


@pytest.mark.parametrize("name", ["x" * 256, "x" * 100_000, "a\0b", "~no_such_user_/gallery"])
def test_a_path_that_no_file_can_have_is_one_error(encoder, tmp_path, name):
    path = name if name.startswith("~") else str(tmp_path / name)
    for use in (lambda: Gallery.create(path, encoder), lambda: Gallery.open(path)):
        with pytest.raises(InputError, match="cannot be the path of a file"):
            use()
    if not name.startswith("~"):
        with pytest.raises(InputError, match="cannot be the path of a file"):
            encoder.save(path)
