import numpy as np
import pytest
from PIL import Image

from simjax.core import InputError
from simjax.data import load


def flat(value, shape=(6, 6, 3)):
    return np.full(shape, value, np.uint8)


def test_classes_are_sub_folders_at_any_depth_and_other_files_are_passed_over(image_folder):
    files = {f"b/{i}.png": flat(10 + i) for i in range(4)} | {f"a/deep/er/{i}.png": flat(20 + i) for i in range(8)}
    root = image_folder(files)
    (root / "a/notes.txt").write_text("no image")
    (root / "a/.hidden.png").write_text("no image")
    (root / ".git").mkdir()
    (root / "empty").mkdir()
    train, test, whole = (load(f"folder:{root}", split) for split in ("train", "test", "all"))
    assert whole.class_names == ("a", "b")
    assert np.bincount(train.labels).tolist() == [6, 3]
    assert np.bincount(test.labels).tolist() == [2, 1]
    assert sorted(whole.images[:, 0, 0, 0]) == [10, 11, 12, 13, *range(20, 28)]
    assert ((whole.images[:, 0, 0, 0] >= 20) == (whole.labels == 0)).all()


def test_train_and_test_folders_keep_the_training_format(image_folder):
    files = {f"train/{c}/{i}.png": flat(i, (9, 7)) for c in "ab" for i in range(2)}
    root = image_folder(files | {"test/b/x.jpg": flat(50, (90, 70, 3))})
    test = load(f"folder:{root}", "test")
    assert test.images.shape == (1, 9, 7, 1)
    assert (test.images == 50).all()
    assert test.labels.tolist() == [1]
    assert load(f"folder:{root}", "all", image_size=(5, 4), channels=3).images.shape == (5, 5, 4, 3)


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_a_validation_folder_stands_in_for_a_test_folder(image_folder, name):
    root = image_folder({"train/a/1.png": flat(1), "train/b/1.png": flat(2), f"{name}/a/1.png": flat(3)})
    assert load(f"folder:{root}", "test").images[0, 0, 0, 0] == 3


def test_new_classes_in_the_test_folder(image_folder):
    root = image_folder({"train/a/1.png": flat(1), "train/b/1.png": flat(2), "test/c/1.png": flat(3)})
    for split in ("train", "test"):
        with pytest.raises(InputError, match="not in its train folder: c"):
            load(f"folder:{root}", split)
    assert load(f"folder:{root}", "all").class_names == ("a", "b", "c")


def test_a_broken_image_is_named_or_skipped(image_folder, random):
    root = image_folder({f"{c}/{i}.png": random.integers(0, 256, (40, 40), np.uint8) for c in "ab" for i in range(4)})
    for name in ("a/0.png", "b/3.png"):
        (root / name).write_bytes((root / name).read_bytes()[:300])
    with pytest.raises(InputError, match=r"a/0\.png: cannot be read .*--skip-unreadable"):
        load(f"folder:{root}", "all")
    with pytest.warns(UserWarning, match=r"\.png: skipped") as warned:
        found = load(f"folder:{root}", "all", skip_unreadable=True)
    assert sorted(str(w.message).split(": ")[0][-7:] for w in warned) == ["a/0.png", "b/3.png"]
    assert np.bincount(found.labels).tolist() == [3, 3]


def test_a_file_that_only_calls_itself_an_image_is_named(image_folder):
    root = image_folder({"a/1.png": flat(1), "b/1.png": flat(1)})
    (root / "b/2.jpeg").write_text("hello")
    with pytest.raises(InputError, match=r"b/2\.jpeg: cannot be read \(no image format"):
        load(f"folder:{root}", "train")


def test_what_is_no_data_set(image_folder, tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        load(f"folder:{tmp_path / 'nowhere'}", "train")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match="two or more classes, got none"):
        load(f"folder:{tmp_path / 'nothing'}", "train")
    with pytest.raises(InputError, match="two or more classes, got only"):
        load(f"folder:{image_folder({'only/1.png': flat(1), 'only/2.png': flat(2)})}", "train")


def test_many_formats_beside_each_other(tmp_path):
    image = Image.fromarray(flat(90, (20, 20, 3)))
    for extension in ("bmp", "gif", "jpg", "JPEG", "png", "tiff", "webp", "ppm"):
        for name in "ab":
            (tmp_path / name).mkdir(exist_ok=True)
            image.save(tmp_path / name / f"{extension}.{extension}")
    found = load(f"folder:{tmp_path}", "all")
    assert found.images.shape == (16, 20, 20, 3)
    assert np.abs(found.images.astype(int) - 90).max() <= 2
