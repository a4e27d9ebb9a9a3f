"""Two encoders, one space: images of characters and descriptions of them find each other, as in CLIP.

    python -m benchmarks.clip FOLDER --test OTHER

FOLDER and OTHER have one sub-folder of images for each character, named by the character or by its code point, such as
U+6D77. No character of OTHER may be in FOLDER. Without --test, which is for the choice of settings, a fifth of the
characters of FOLDER are left out of the training and tested. One network encodes the images, dark on light, and another
one the descriptions. InfoNCE in both directions (or SigLIP) makes the two embeddings of a character similar:

    L = (cross entropy of image i among all texts + cross entropy of text i among all images) / 2,   logits cosine / t

Then images of characters that were never seen are searched among the descriptions of all tested characters, and
descriptions among the images. Descriptions come from Unicode's character database (`describe`); for comparison, other
encoders are trained with the bare Unicode names.

References:
    Radford et al. (2021), Learning Transferable Visual Models From Natural Language Supervision (CLIP).
    Zhai, Mustafa, Kolesnikov, Beyer (2023), Sigmoid Loss for Language Image Pre-Training (SigLIP).
"""

import argparse
import bisect
import json
import re
import sys
import textwrap
import time
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

if not __package__:  # as `python benchmarks/clip.py`
    sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from benchmarks import _report
from benchmarks.one_shot import cell
from simjax.core import InputError, check_choice
from simjax.data import Dataset, augment, class_table, load, sample_unique_labels
from simjax.evaluate import Estimate, mean_estimate
from simjax.losses import info_nce_loss, siglip_loss
from simjax.nn import NETWORKS, DenseNetwork, ScaleAndBias, Temperature
from simjax.similarity import top_k
from simjax.train import Settings, load_toml
from simjax.train._settings import network_options
from simjax.train._step import build_augmentation, build_optimizer

CONFIG = Path(__file__).parents[1] / "configs" / "clip" / "glyphs.toml"
OBJECTIVES = ("info_nce", "siglip")
TEST_FRACTION = 0.2
N_GRAMS = (1, 4)
LOG_STEPS = 50
RADICALS = sorted(
    (unicodedata.normalize("NFKC", chr(code)), unicodedata.name(chr(code))) for code in range(0x2F00, 0x2FD6)
)
"""The 214 radicals as characters, in the order of their code points, and names such as KANGXI RADICAL WATER."""
IDEOGRAPHS = "\u4e00", "\u9fa5"  # the first and the last of the ideographs that Unicode sorts by radical


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, test and print the table; the exit status is 2 if an argument cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clip", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", type=Path, help="one sub-folder of images for each character")
    parser.add_argument("--test", type=Path, metavar="OTHER", help="folder of other characters")
    parser.add_argument("--texts", nargs="+", choices=TEXTS, default=list(TEXTS), help="kinds of texts")
    parser.add_argument(
        "--config", type=Path, default=CONFIG, help="settings other than those of configs/clip/glyphs.toml"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the results as JSON")
    options = parser.parse_args(arguments)
    try:
        if options.out and not options.out.parent.is_dir():
            raise InputError(f"--out: expected a file in an existing folder, got {options.out}")
        settings = load_toml(options.config, load_toml(CONFIG))
        check_choice("objective", settings.objective, OBJECTIVES)
        train, test = read_parts(options.folder, options.test)
        report = {**_report.environment(), "settings": asdict(settings), "runs": []}
        for name in options.texts:
            report["runs"].append(run(train, test, name, settings))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(table(report))
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def read_parts(folder: Path, other: Path | None) -> tuple[Dataset, Dataset]:
    """Return training and test images of different characters; without `other`, both come from `folder`."""
    train = read_characters(folder)
    if other is None:
        order = np.random.default_rng(0).permutation(len(train.class_names))
        if len(order) < 4:
            raise InputError(
                f"{folder}: expected at least 4 characters to train with some and test others, got {len(order)}"
            )
        test_count = max(2, round(TEST_FRACTION * len(order)))
        return take_characters(train, order[test_count:]), take_characters(train, order[:test_count])
    height, width, channels = train.images.shape[1:]
    test = read_characters(other, image_size=(height, width), channels=channels)
    if seen := sorted(set(train.class_names) & set(test.class_names)):
        raise InputError(f"--test: expected characters that are not in {folder}, got {', '.join(seen)}")
    return train, test


def read_characters(folder: Path, **options: Any) -> Dataset:
    """Return the images of a folder, whose classes are named by their characters; for the options see `data.load`."""
    dataset = load(f"folder:{folder}", "all", **options)
    characters = tuple(character_of(name, folder) for name in dataset.class_names)
    if repeated := sorted({character for character in characters if characters.count(character) > 1}):
        raise InputError(f"{folder}: expected one sub-folder for each character, got more for {', '.join(repeated)}")
    return dataset._replace(class_names=characters)


def character_of(name: str, folder: Path) -> str:
    """Return the character that a sub-folder is named by, as itself or as its code point, such as U+6D77."""
    code = re.fullmatch(r"U\+((?:10|0?[0-9A-F])?[0-9A-F]{4})", name.upper())
    character = chr(int(code[1], 16)) if code else unicodedata.normalize("NFC", name)  # macOS decomposes
    if len(character) != 1 or not unicodedata.name(character, ""):
        raise InputError(
            f"{folder}: expected sub-folders named by a character or its code point (U+6D77), got {name!r}"
        )
    return character


def take_characters(dataset: Dataset, indices: np.ndarray) -> Dataset:
    """Return the images of some of the characters; the label of an image is the position of its character in them."""
    position = np.full(len(dataset.class_names), -1, np.int32)
    position[indices] = np.arange(len(indices))
    labels = position[dataset.labels]
    names = tuple(dataset.class_names[index] for index in indices)
    return Dataset(dataset.images[labels >= 0], labels[labels >= 0], names)


def describe(character: str) -> str:
    """Return the Unicode name, or the radical and the place of an ideograph, whose name is only a number.

    Unicode sorts the ideographs by their radical (the part by which dictionaries order them), and those with the same
    radical by the number of their other strokes. The radical of an ideograph is therefore the last radical that is not
    after it, and its place is the tenth of the code points up to the next radical, a letter from a to j.

    Example:
        >>> describe("é"), describe("海")
        ('LATIN SMALL LETTER E WITH ACUTE', 'WATER c')
    """
    first, last = IDEOGRAPHS
    if not first <= character <= last:
        return unicodedata.name(character)
    starts = [ord(radical) for radical, _ in RADICALS] + [ord(last) + 1]
    index = bisect.bisect(starts, ord(character)) - 1
    tenth = 10 * (ord(character) - starts[index]) // (starts[index + 1] - starts[index])
    return f"{RADICALS[index][1].removeprefix('KANGXI RADICAL ')} {'abcdefghij'[tenth]}"


TEXTS: dict[str, Callable[[str], str]] = {"description": describe, "name": unicodedata.name}
"""Texts about a character, by the kind of text: functions of the character."""


class TwoEncoders(nnx.Module):
    """A network for images, one for texts, and the learned scale of their similarities.

    Args:
        image_shape: (h, w, c) of the images.
        vocabulary_size: Number of features of a text.
        settings: The image encoder is `settings.model`; the text encoder is a dense network, `settings.dnn`.
        rngs: Random keys of the parameters.
    """

    def __init__(self, image_shape: tuple[int, ...], vocabulary_size: int, settings: Settings, rngs: nnx.Rngs):
        size, network = settings.embedding_size or 64, NETWORKS[settings.model]
        self.image = network(image_shape, embedding_size=size, rngs=rngs, **network_options(settings))
        self.text = DenseNetwork((1, 1, vocabulary_size), embedding_size=size, rngs=rngs, **asdict(settings.dnn))
        self.scale = Temperature() if settings.objective == "info_nce" else ScaleAndBias()

    def loss(self, images: Array, texts: Array) -> Array:
        """Return the loss of images [b, h, w, c] and texts [b, v] of b different characters."""
        x, y = self.image(images), self.text(texts)
        if isinstance(self.scale, Temperature):
            return info_nce_loss(x, y, temperature=self.scale(), directions="both")
        scale = self.scale()
        return siglip_loss(x, y, log_scale=scale["log_scale"], bias=scale["bias"])


def fit(images: np.ndarray, labels: np.ndarray, texts: np.ndarray, settings: Settings) -> TwoEncoders:
    """Train two encoders.

    Args:
        images: uint8 [n, h, w, c].
        labels: The character of each image, integers [n].
        texts: Features of the text of each character, [c, v].
        settings: Steps, seed, network, optimizer and augmentation.
    """
    model = TwoEncoders(images.shape[1:], texts.shape[1], settings, nnx.Rngs(settings.seed))
    steps = settings.steps or 0
    optimizer = nnx.Optimizer(model, build_optimizer(settings, steps)[0], wrt=nnx.Param)
    table = class_table(labels, len(texts))
    batch_size = min(settings.batch_size, len(texts))
    augmentation = build_augmentation(settings)
    data = jax.device_put((images, labels, texts))

    @nnx.jit
    def train_step(model: TwoEncoders, optimizer: nnx.Optimizer, step: ArrayLike, data: tuple[Array, ...]) -> Array:
        images, labels, texts = data
        sample_key, augment_key = jax.random.split(jax.random.fold_in(jax.random.key(settings.seed), step))
        # Two images of one character in a batch would be negatives of each other's text.
        rows = sample_unique_labels(sample_key, 0, table, batch_size)
        batch = augment(augment_key, ink(images[rows]), augmentation)
        loss, gradient = nnx.value_and_grad(lambda model: model.loss(batch, texts[labels[rows]]))(model)
        optimizer.update(model, gradient)
        return loss

    for step in range(steps):
        loss = train_step(model, optimizer, step, data)
        if (step + 1) % LOG_STEPS == 0:
            print(f"step {step + 1:,} of {steps:,}: loss {loss:.3f}", flush=True)
    return model


def ink(images: ArrayLike) -> Array:
    """Return 1 - images / 255, so that the paper is 0, as augmentation expects of a background."""
    return 1 - jnp.asarray(images, jnp.float32) / 255


def retrieve(model: TwoEncoders, test: Dataset, texts: np.ndarray) -> dict[str, Estimate]:
    """Return how often the first result is right, in both directions, with each character left out at a time.

    An image is searched among the texts [c, v] of all characters, and a text among the images of all characters. With
    chance alone, a share of 1 / c would be right.
    """
    model = nnx.view(model, use_running_average=True)
    encode = nnx.jit(lambda model, images: model.image(ink(images)))
    x = np.concatenate([encode(model, part) for part in np.array_split(test.images, len(test.images) // 500 + 1)])
    y = model.text(jnp.asarray(texts))
    found_texts, found_images = (np.asarray(top_k(a, b, 1)[1][:, 0]) for a, b in ((x, y), (y, x)))
    names = np.array(test.class_names)
    return {
        "image_to_text": mean_estimate(found_texts == test.labels, names[test.labels]),
        "text_to_image": mean_estimate(test.labels[found_images] == np.arange(len(names)), names),
    }


def run(train: Dataset, test: Dataset, text: str, settings: Settings) -> dict[str, Any]:
    """Train with one kind of texts, and return the results on the test images."""
    from sklearn.feature_extraction.text import CountVectorizer

    training_texts, test_texts = ([TEXTS[text](character) for character in part.class_names] for part in (train, test))
    vectorizer = CountVectorizer(analyzer="char_wb", ngram_range=N_GRAMS, binary=True)
    vectorizer.fit(training_texts)  # n-grams that no training text has are ignored
    vectors, test_vectors = (
        vectorizer.transform(part).toarray().astype(np.float32) for part in (training_texts, test_texts)
    )
    start, processor_start = time.perf_counter(), time.process_time()
    model = fit(train.images, train.labels, vectors, settings)
    jax.block_until_ready(nnx.state(model))
    record: dict[str, Any] = {
        "text": text,
        "train_seconds": time.perf_counter() - start,
        "processor_seconds": time.process_time() - processor_start,
        "characters": len(train.class_names),
        "images": len(train.images),
        "test_characters": len(test.class_names),
        "test_images": len(test.images),
        "distinct_texts": len(set(test_texts)),
    }
    for name, estimate in retrieve(model, test, test_vectors).items():
        record |= {name: estimate.value, f"{name}_interval": estimate.interval()}
    return record


def table(report: dict[str, Any]) -> str:
    """Return the results in Markdown."""
    first, settings = report["runs"][0], report["settings"]
    characters = first["test_characters"]
    text = (
        f"Trained on {first['images']:,} images of {first['characters']:,} characters, {settings['steps']:,} steps of "
        f"{settings['batch_size']} characters, objective `{settings['objective']}`; {report['date']}, "
        f"{report['machine']}. Tested on {first['test_images']:,} images of {characters:,} other characters. Chance is "
        f"1 / {characters} = {1 / characters:.4f}. In brackets: 95% intervals over characters. Characters can share a "
        "text: the second column counts different ones."
    )
    rows = [
        f"| {r['text']} | {r['distinct_texts']} | {cell(r, 'image_to_text')} | {cell(r, 'text_to_image')} "
        f"| {r['train_seconds']:.0f} s ({r['processor_seconds']:.0f} s of one core) |"
        for r in report["runs"]
    ]
    head = ["| text | different | image to text | text to image | training |", "|---|---|---|---|---|"]
    return "\n".join([textwrap.fill(text, 120), "", *head, *rows, ""])


if __name__ == "__main__":
    sys.exit(main())
