"""The example of two encoders: descriptions, folders, the loss and retrieval against loops, and its page."""

import json
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from benchmarks import clip
from simjax.core import InputError
from simjax.data import Dataset
from simjax.train import from_dict, load_toml

DOCS = Path(__file__).parents[2] / "docs"


def write_folder(folder, images):
    """Write lists of images by the name of their sub-folder."""
    for name, group in images.items():
        (folder / name).mkdir(parents=True)
        for index, image in enumerate(group):
            Image.fromarray(np.asarray(image, np.uint8)).save(folder / name / f"{index}.png")
    return folder


def constant(value):
    return np.full((8, 8), value)


def test_an_ideograph_is_described_by_the_last_radical_before_it_and_its_place():
    radicals = {}
    for code in range(0x2F00, 0x2FD6):
        start = unicodedata.decomposition(chr(code)).split()[1]
        radicals[int(start, 16)] = unicodedata.name(chr(code))
    for character in "一丁海村銅惇晦貰龍龜龠龥":
        start = max(code for code in radicals if code <= ord(character))
        end = min([code for code in radicals if code > ord(character)], default=0x9FA6)
        tenth = int((ord(character) - start) / (end - start) * 10)
        assert clip.describe(character) == f"{radicals[start][15:]} {'abcdefghij'[tenth]}"
    assert clip.describe("海") == "WATER c"
    for code in radicals:
        assert clip.describe(chr(code)) == f"{radicals[code][15:]} a"


@pytest.mark.parametrize("character", ["é", "각", "\u3400", "\u4dff", "\u9fa6"])
def test_other_characters_are_described_by_their_names(character):
    assert clip.describe(character) == unicodedata.name(character)


def test_a_folder_is_named_by_a_character_or_its_code_point():
    names = {"海": "海", "U+6D77": "海", "u+6d77": "海", "U+06D77": "海", "U+1F600": "😀", "é": "é", "e\u0301": "é"}
    names |= dict.fromkeys(["cats", "", "U+", "U+12", "U+D800", "U+110000", "U+6D77x", "U+10FFFD", "\n"])
    for name, character in names.items():
        if character is not None:
            assert clip.character_of(name, Path("f")) == character
        else:
            with pytest.raises(InputError, match=r"f: expected sub-folders named by a character or its code point"):
                clip.character_of(name, Path("f"))


def test_parts_have_different_characters_and_the_images_of_each(tmp_path):
    folder = write_folder(tmp_path / "a", {f"U+{code:04X}": [constant(code)] * 2 for code in range(65, 75)})
    other = write_folder(tmp_path / "b", {chr(code): [np.full((12, 12), code)] for code in range(75, 79)})
    for parts, expected in (
        (clip.read_parts(folder, None), ("ABCDEFGHIJ", 8, 2)),
        (clip.read_parts(folder, other), ("ABCDEFGHIJKLMN", 10, 4)),
    ):
        names = [part.class_names for part in parts]
        assert ("".join(sorted(names[0] + names[1])), *map(len, names)) == expected
        for part in parts:
            assert part.images.shape[1:] == (8, 8, 1)
            assert sorted(set(part.labels.tolist())) == list(range(len(part.class_names)))
            assert [chr(image[0, 0, 0]) for image in part.images] == [part.class_names[label] for label in part.labels]


def test_bad_input_gives_one_line_and_status_2(tmp_path, capsys):
    cats = write_folder(tmp_path / "cats", {"cat": [constant(0)], "dog": [constant(1)]})
    letters = write_folder(tmp_path / "letters", {"A": [constant(0)], "U+0042": [constant(1)]})
    twice = write_folder(tmp_path / "twice", {"A": [constant(0)], "U+0041": [constant(1)]})
    softmax, unknown = tmp_path / "softmax.toml", tmp_path / "unknown.toml"
    softmax.write_text('objective = "softmax"\n')
    unknown.write_text("stepz = 3\n")
    cases = {
        (cats,): "expected sub-folders named by a character or its code point (U+6D77), got 'cat'",
        (tmp_path / "none",): "no such folder",
        (letters,): "expected at least 4 characters to train with some and test others, got 2",
        (letters, "--test", letters): f"--test: expected characters that are not in {letters}, got A, B",
        (twice,): "expected one sub-folder for each character, got more for A",
        (letters, "--out", tmp_path / "none" / "clip.json"): "--out: expected a file in an existing folder",
        (letters, "--config", softmax): "unknown objective 'softmax'",
        (letters, "--config", unknown): "unknown setting 'stepz' (did you mean steps?",
    }
    for arguments, message in cases.items():
        assert clip.main([str(argument) for argument in arguments]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert message in error
        assert error.count("\n") == 1


def softplus(x):
    return np.logaddexp(0, x)


@pytest.mark.parametrize("objective", clip.OBJECTIVES)
def test_the_loss_is_that_of_the_formula(objective, random):
    settings = from_dict({"model": "dnn", "objective": objective, "embedding_size": 3, "dnn": {"widths": []}})
    model = clip.TwoEncoders((2, 2, 1), 6, settings, nnx.Rngs(0))
    images, texts = random.random((5, 2, 2, 1), np.float32), random.random((5, 6), np.float32)
    x, y = (np.array(rows, np.float64) for rows in (model.image(jnp.array(images)), model.text(jnp.array(texts))))
    cosine = [[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in y] for a in x]
    if objective == "info_nce":
        z = np.array(cosine) / 0.07
        rows = [np.log(np.exp(z[i]).sum()) - z[i, i] for i in range(5)]
        columns = [np.log(np.exp(z[:, i]).sum()) - z[i, i] for i in range(5)]
        expected = (np.mean(rows) + np.mean(columns)) / 2
    else:
        z = 10 * np.array(cosine) - 10
        expected = sum(softplus(-z[i, j] if i == j else z[i, j]) for i in range(5) for j in range(5)) / 5
    np.testing.assert_allclose(model.loss(jnp.array(images), jnp.array(texts)), expected, rtol=1e-5)


class Pixels(nnx.Module):
    """In place of `TwoEncoders`: an image is the vector of its ink, and a text that of its features."""

    use_running_average = False

    def set_view(self, use_running_average):
        self.use_running_average = use_running_average

    def image(self, images):
        assert self.use_running_average
        return images.reshape(len(images), -1)

    def text(self, texts):
        return texts


def test_retrieval_counts_right_first_results_in_both_directions(random):
    images = random.integers(0, 256, (13, 2, 2, 1), dtype=np.uint8)
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 4, 4])
    texts = random.random((5, 4), np.float32)
    found = clip.retrieve(Pixels(), Dataset(images, labels, tuple("ABCDE")), texts)  # pyright: ignore[reportArgumentType]
    ink = 1 - images.reshape(13, 4) / 255

    def cosine(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    of_images = [
        max(range(5), key=lambda j: cosine(a, texts[j])) == label for a, label in zip(ink, labels, strict=True)
    ]
    of_texts = [labels[max(range(13), key=lambda i: cosine(ink[i], text))] == j for j, text in enumerate(texts)]
    assert 0 < np.mean(of_images) < 1
    assert 0 < np.mean(of_texts) < 1
    without = [np.mean([r for r, label in zip(of_images, labels, strict=True) if label != j]) for j in range(5)]
    assert found["image_to_text"].value == pytest.approx(np.mean(of_images))
    assert found["image_to_text"].leave_one_out == pytest.approx(without)
    assert found["text_to_image"].value == pytest.approx(np.mean(of_texts))
    assert found["text_to_image"].sample_size == 5


def test_the_page_is_that_of_the_record_and_reaches_ten_times_chance():
    report = json.loads((DOCS / "clip.json").read_text())
    assert clip.table(report) in (DOCS / "clip.md").read_text()
    assert from_dict(report["settings"]) == load_toml(clip.CONFIG)
    by_text = {record["text"]: record for record in report["runs"]}
    assert set(by_text) == set(clip.TEXTS)
    best = by_text["description"]
    for direction in ("image_to_text", "text_to_image"):
        assert best[f"{direction}_interval"][0] >= 10 / best["test_characters"]


BLOBS = [(row, column) for row in (0, 4, 8) for column in (0, 4)]


def syllable(initial, vowel, random):
    """Draw the letters of a Hangul syllable as two dark squares, one in each half, with noise."""
    image = random.integers(200, 256, (12, 16))
    for half, letter in enumerate((initial, vowel)):
        row, column = BLOBS[letter]
        image[row : row + 4, 8 * half + column : 8 * half + column + 4] = random.integers(0, 60, (4, 4))
    return image


@pytest.mark.slow
def test_syllables_never_seen_are_found_by_the_names_of_their_letters(tmp_path, random, capsys):
    codes = {(i, v): 0xAC00 + 28 * (21 * initial + v) for i, initial in enumerate((0, 2, 3, 5, 6, 7)) for v in range(6)}
    images = {f"U+{code:04X}": [syllable(*letters, random) for _ in range(5)] for letters, code in codes.items()}
    config = tmp_path / "short.toml"
    config.write_text(
        'model = "dnn"\nsteps = 150\n[dnn]\nwidths = [64]\n[augment]\nshift = 0.0\nrotation = 0.0\nscale = 0.0\n'
    )
    arguments = [
        str(write_folder(tmp_path / "syllables", images)),
        "--config",
        str(config),
        "--out",
        str(tmp_path / "clip.json"),
    ]
    assert clip.main([*arguments, "--texts", "name"]) == 0
    report = json.loads((tmp_path / "clip.json").read_text())
    record = SimpleNamespace(**report["runs"][0])
    assert (record.characters, record.test_characters, record.test_images) == (29, 7, 35)
    assert record.image_to_text > 0.7
    assert record.text_to_image > 0.7
    assert clip.table(report) in capsys.readouterr().out
