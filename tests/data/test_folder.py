import os
import re

import numpy as np
import pytest
from PIL import Image

from simjax.core import InputError
from simjax.data import load


def flat(value, shape=(6, 6, 3)):
    return np.full(shape, value, np.uint8)


def test_classes_are_sub_folders_with_images_at_any_depth(image_folder):
    files = {f"b/{i}.png": flat(10 + i) for i in range(4)} | {f"a/deep/er/{i}.png": flat(20 + i) for i in range(8)}
    root = image_folder(files)
    train, test, whole = (load(f"folder:{root}", split) for split in ("train", "test", "all"))
    assert whole.class_names == ("a", "b")
    assert np.bincount(train.labels).tolist() == [6, 3]
    assert np.bincount(test.labels).tolist() == [2, 1]
    assert sorted(whole.images[:, 0, 0, 0]) == [10, 11, 12, 13, *range(20, 28)]
    assert ((whole.images[:, 0, 0, 0] >= 20) == (whole.labels == 0)).all()


def test_test_images_get_the_format_of_the_training_images(image_folder):
    files = {f"train/{c}/{i}.png": flat(i, (9, 7)) for c in "ab" for i in range(2)}
    root = image_folder(files | {"test/b/x.jpg": flat(50, (90, 70, 3))})
    test = load(f"folder:{root}", "test")
    assert test.images.shape == (1, 9, 7, 1)
    assert (test.images == 50).all()
    assert test.labels.tolist() == [1]
    assert load(f"folder:{root}", "all", image_size=(5, 4), channels=3).images.shape == (5, 5, 4, 3)


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_a_validation_folder_replaces_a_missing_test_folder(image_folder, name):
    root = image_folder({"train/a/1.png": flat(1), "train/b/1.png": flat(2), f"{name}/a/1.png": flat(3)})
    assert load(f"folder:{root}", "test").images[0, 0, 0, 0] == 3


def test_new_classes_in_the_test_folder_are_an_error_unless_all_are_loaded(image_folder):
    root = image_folder({"train/a/1.png": flat(1), "train/b/1.png": flat(2), "test/c/1.png": flat(3)})
    for split in ("train", "test"):
        with pytest.raises(InputError, match="not in its train folder: c"):
            load(f"folder:{root}", split)
    assert load(f"folder:{root}", "all").class_names == ("a", "b", "c")


def test_an_unreadable_image_is_an_error_or_skipped(image_folder, random):
    root = image_folder({f"{c}/{i}.png": random.integers(0, 256, (40, 40), np.uint8) for c in "ab" for i in range(4)})
    for name in ("a/0.png", "b/3.png"):
        (root / name).write_bytes((root / name).read_bytes()[:300])
    with pytest.raises(InputError, match=r"a/0\.png: cannot be read .*`skip_unreadable=True` leaves out"):
        load(f"folder:{root}", "all")
    with pytest.warns(UserWarning, match="left out|skipped") as warned:
        found = load(f"folder:{root}", "all", skip_unreadable=True)
    *files, whole = (str(w.message) for w in warned)
    assert [re.sub(r".*(..)/(.*): skipped, it cannot be read .*", r"\1/\2", file)[-7:] for file in files] == [
        "a/0.png",
        "b/3.png",
    ]
    assert whole == f"folder:{root}: left out 2 unreadable images"
    assert np.bincount(found.labels).tolist() == [3, 3]


def test_a_file_with_a_wrong_extension_is_an_error(image_folder):
    root = image_folder({"a/1.png": flat(1), "b/1.png": flat(1)})
    (root / "b/2.jpeg").write_text("hello")
    with pytest.raises(InputError, match=r"b/2\.jpeg: cannot be read \(no image format"):
        load(f"folder:{root}", "train")


def test_paths_without_classes_are_errors(image_folder, tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        load(f"folder:{tmp_path / 'nowhere'}", "train")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match="two or more classes, got none"):
        load(f"folder:{tmp_path / 'nothing'}", "train")
    with pytest.raises(InputError, match="two or more classes, got only"):
        load(f"folder:{image_folder({'only/1.png': flat(1), 'only/2.png': flat(2)})}", "train")


def test_a_folder_of_many_formats(tmp_path):
    image = Image.fromarray(flat(90, (20, 20, 3)))
    for extension in ("bmp", "gif", "jpg", "JPEG", "png", "tiff", "webp", "ppm"):
        for name in "ab":
            (tmp_path / name).mkdir(exist_ok=True)
            image.save(tmp_path / name / f"{extension}.{extension}")
    found = load(f"folder:{tmp_path}", "all")
    assert found.images.shape == (16, 20, 20, 3)
    assert np.abs(found.images.astype(int) - 90).max() <= 2


def values(dataset):
    """The grey values of flat images, by class."""
    return {
        name: sorted(dataset.images[dataset.labels == label][:, 0, 0, 0].tolist())
        for label, name in enumerate(dataset.class_names)
    }


def test_hidden_system_and_other_files_are_skipped_with_one_warning(image_folder):
    files = {f"{c}/{i}.png": flat(10 * i) for c in ("cats", "dogs") for i in range(4)}
    copies = (
        "cats/.ipynb_checkpoints/0-checkpoint.png",
        "cats/.ipynb_checkpoints/1.png",
        "dogs/@eaDir/0.png/THUMB.png",
    )
    more = (".git/logo.png", "__MACOSX/cats/0.png", "cats/.DS_Store.png")
    root = image_folder(files | dict.fromkeys((*copies, *more, "beside.png"), flat(255)))
    for name in ("cats/features.h5", "cats/clip.mpg", "dogs/notes.txt", "dogs/x.HEIC", "dogs/README"):
        (root / name).write_bytes(b"\x89HDF\r\n\x1a\n")
    os.mkfifo(root / "dogs/pipe.png")
    with pytest.warns(UserWarning, match="left out|skipped") as warned:
        found = load(f"folder:{root}", "all")
    assert values(found) == {"cats": [0, 10, 20, 30], "dogs": [0, 10, 20, 30]}
    assert [str(w.message) for w in warned] == [
        f"folder:{root}: left out 3 files in hidden folders (.ipynb_checkpoints: 2, .git: 1), 2 files in system "
        "folders (@eaDir: 1, __MACOSX: 1), 1 file without an extension, 1 hidden file, 1 image beside the folders of "
        "classes, 1 image in formats that Pillow cannot read, to be converted to PNG or JPEG (.heic: 1), 3 other "
        "files (.h5: 1, .mpg: 1, .txt: 1), 1 special file"
    ]


def test_links_are_followed_except_to_a_folder_that_contains_the_link(image_folder, tmp_path):
    root = image_folder({f"{c}/{i}.png": flat(v + i) for c, v in (("cats", 10), ("dogs", 20)) for i in range(2)})
    image_folder({f"{i}.png": flat(30 + i) for i in range(2)}, name="elsewhere")
    image_folder({f"{i}.png": flat(40 + i) for i in range(2)}, name="birds")
    (root / "birds").symlink_to(tmp_path / "birds")  # a class that is a link
    (root / "cats/more").symlink_to(tmp_path / "elsewhere")
    (root / "cats/one.png").symlink_to(tmp_path / "elsewhere/0.png")
    (root / "cats/itself").symlink_to(".")
    (root / "dogs/up").symlink_to("..")  # a check of visited folders alone would add all cats
    (root / "dogs/top").symlink_to("/")
    (tmp_path / "birds/back").symlink_to(root)  # contains the link to the birds
    (root / "dogs/gone.png").symlink_to(tmp_path / "gone.png")
    (root / "dogs/loop").symlink_to("loop")
    with pytest.warns(UserWarning, match="left out|skipped") as warned:
        found = load(f"folder:{root}", "all")
    assert values(found) == {"birds": [40, 41], "cats": [10, 11, 30, 30, 31], "dogs": [20, 21]}
    assert [str(w.message) for w in warned] == [
        f"folder:{root}: left out 2 broken links, 4 links to a folder that contains the link (back: 1, itself: 1, "
        "top: 1, up: 1)"
    ]


def test_folders_that_link_to_each_other(image_folder):
    root = image_folder({"cats/1.png": flat(1), "dogs/2.png": flat(2)})
    (root / "cats/dogs").symlink_to("../dogs")
    (root / "dogs/cats").symlink_to("../cats")
    with pytest.warns(UserWarning, match="2 links to a folder that contains the link"):
        assert values(load(f"folder:{root}", "all")) == {"cats": [1, 2], "dogs": [1, 2]}


def test_a_class_without_images_gives_a_warning_with_the_reason(image_folder):
    root = image_folder({f"{c}/{i}.png": flat(i) for c in "ab" for i in range(2)})
    for name, file in (("c", "1.heic"), ("c", "2.heic"), ("d", "1"), ("e", None)):
        (root / name).mkdir(exist_ok=True)
        if file:
            (root / name / file).write_bytes(b"ftypheic")
    converted = "in formats that Pillow cannot read, to be converted to PNG or JPEG (.heic: 2)"
    with pytest.warns(UserWarning, match="left out|skipped") as warned:
        assert load(f"folder:{root}", "train").class_names == ("a", "b")
    assert str(warned[0].message).endswith(
        f"; sub-folders that are not read, or without images: c (2 images {converted}), "
        "d (1 file without an extension), e (empty)"
    )
    (root / "b").rename(root / "a" / "b")
    with pytest.raises(InputError, match=r"two or more classes, got a; left out .*c \(2 images in formats"):
        load(f"folder:{root}", "train")


def test_images_directly_in_the_folder(image_folder):
    root = image_folder({f"{i}.png": flat(i) for i in range(8)})
    with pytest.raises(InputError, match="two or more classes, got 8 images directly in it"):
        load(f"folder:{root}", "train")
    train, test = (load(f"folder:{root}", split, needs_classes=False) for split in ("train", "test"))
    assert (train.class_names, len(train.labels), len(test.labels)) == (("photos",), 6, 2)
    assert sorted([*values(train)["photos"], *values(test)["photos"]]) == list(range(8))
    assert load(f"folder:{image_folder({'a/1.png': flat(1)}, 'one')}", "all", needs_classes=False).class_names == ("a",)


def test_images_directly_in_train_and_test_folders(image_folder):
    root = image_folder(
        {f"Train/{i}.png": flat(i) for i in range(3)} | {"testing/7.png": flat(7), "more/1.png": flat(9)}
    )
    with pytest.raises(InputError, match=r"got 4 images directly in it; .*more \(beside Train\)"):
        load(f"folder:{root}", "train")
    with pytest.warns(UserWarning, match=r"not read, or without images: more \(beside Train\)"):
        assert values(load(f"folder:{root}", "train", needs_classes=False)) == {"photos": [0, 1, 2]}
    (root / "testing/a").mkdir()
    (root / "testing/7.png").rename(root / "testing/a/7.png")
    with pytest.raises(InputError, match="images lie directly in Train, but testing has sub-folders of classes"):
        load(f"folder:{root}", "train", needs_classes=False)


def test_images_are_resized_to_their_median_aspect_ratio(image_folder):
    lines = []
    faces = image_folder({f"{c}/{i}.png": flat(i, (112, 92)) for c in "ab" for i in range(4)}, "faces")
    found = load(f"folder:{faces}", "train", progress=lambda *line: lines.append(line))
    assert found.images.shape == (6, 35, 29, 1)
    resized = "images of 112x92 pixels (height x width) are resized to 35x29; those of another aspect ratio are padded"
    assert lines == [(f"folder:{faces}: {resized}", 1, 1)]
    assert load(f"folder:{faces}", "train", image_size=(20, 30)).images.shape == (6, 20, 30, 1)
    assert load(f"folder:{faces}", "train", image_size=20).images.shape == (6, 20, 20, 1)
    mixed = image_folder(
        {f"train/{c}/{h}.png": flat(1, (h, 100 - h)) for c in "ab" for h in (10, 50, 90)} | {"test/a/1.png": flat(1)},
        "m",
    )
    assert load(f"folder:{mixed}", "all").images.shape[1:3] == (32, 32)
    long = image_folder({f"{c}/1.png": flat(1, (300, 10)) for c in "ab"}, "long")
    assert load(f"folder:{long}", "all").images.shape[1:3] == (64, 16)


def test_paths_are_those_of_the_images(image_folder):
    files = {f"train/{c}/{i}.png": flat(10 * i, (8, 8)) for c in ("a", "b/deep") for i in range(1, 4)}
    root = image_folder(files | {"test/a/x.png": flat(70, (8, 8))})
    for split, count in (("train", 6), ("test", 1), ("all", 7)):
        found = load(f"folder:{root}", split)
        assert found.paths is not None
        assert len(set(found.paths)) == count
        for path, image, label in zip(found.paths, found.images, found.labels, strict=True):
            with Image.open(root / path) as file:
                np.testing.assert_array_equal(image[..., 0], file)
            assert path.split("/")[1] == found.class_names[label]
    chosen = load(f"folder:{root}[b]", "train")
    assert chosen.paths is not None
    assert chosen.paths.tolist() == [f"train/b/deep/{i}.png" for i in range(1, 4)]


def test_paths_of_a_sum_begin_with_the_data_set_and_are_empty_without_files(image_folder):
    root = image_folder({f"{c}/{i}.png": flat(i, (8, 8)) for c in "ab" for i in range(2)}, name="pets")
    both = load(f"digits[0]+folder:{root}", "all")
    assert both.paths is not None
    files = both.paths != ""
    assert sorted(both.paths[files]) == [f"pets/{c}/{i}.png" for c in "ab" for i in range(2)]
    for path, label in zip(both.paths[files], both.labels[files], strict=True):
        assert path.startswith(f"{both.class_names[label]}/")
    assert load("digits", "all").paths is None
    assert load("digits[1]+digits[2]", "train").paths is None
