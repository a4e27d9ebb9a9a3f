"""`simjax encoders | embed | classify | calibrate | verify | fid`: commands that use an encoder without a gallery."""

import contextlib
import csv
import dataclasses
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tyro.conf import Positional

from simjax._compilation_cache import enable_compilation_cache
from simjax._files import write_file
from simjax.cli._arguments import check_rate, parse
from simjax.cli._images import encode_files, encoding_progress, identities_of, of_readable, one_image
from simjax.cli._results import calibration_size, check_new_folder, check_output, print_json, print_verification
from simjax.core import InputError, check_at_least
from simjax.report._numbers import quantity
from simjax.train._progress import print_line

ABBREVIATIONS = {"FNIR": "False negative identification rate", "FPIR": "False positive identification rate"}


@dataclasses.dataclass(frozen=True)
class EncodersArguments:
    """List the encoders that are part of simjax, with their data and results."""

    json: bool = False
    """Print one JSON document."""


@dataclasses.dataclass(frozen=True)
class EmbedArguments:
    """Write the embeddings of images, with their file names."""

    encoder: Positional[str]
    """Folder of a run or of an encoder, or the name of a ready one."""
    images: Positional[tuple[str, ...]]
    """Images, and folders of images."""
    out: str
    """File to write: .npz (arrays `embedding`, `path` and `fingerprint`, that of the encoder) or .csv (a line for each
    image)."""
    normalize: bool = False
    """Scale embeddings to unit length."""
    batch_size: int | None = None
    """Images that are embedded at once. Default: 256, or fewer for a network with a large input."""
    skip_unreadable: bool = False
    """Leave out images that cannot be read, with a warning."""
    json: bool = False
    """Print one JSON document."""


@dataclasses.dataclass(frozen=True)
class ClassifyArguments:
    """Classify images by the classifier of an encoder, which the objective softmax trains."""

    encoder: Positional[str]
    """Folder of a run or of an encoder, or the name of a ready one that has a classifier, such as cifar10-cnn."""
    images: Positional[tuple[str, ...]]
    """Images, and folders of images."""
    top: int = 1
    """Classes to print for each image, the most probable ones first."""
    json: bool = False
    """Print one JSON document."""
    batch_size: int | None = None
    """Images that are embedded at once. Default: 256, or fewer for a network with a large input."""
    skip_unreadable: bool = False
    """Leave out images that cannot be read, with a warning."""


@dataclasses.dataclass(frozen=True)
class CalibrateArguments:
    """Fit probabilities and thresholds of an encoder to images of known identities.

    All galleries that are created with it afterwards have them; `gallery calibrate` calibrates one gallery.
    """

    encoder: Positional[str]
    """Folder of a run or of an encoder, or the name of a ready one."""
    images: str
    """Folder with one sub-folder for each identity, none of which will be enrolled in a gallery."""
    method: Literal["logistic", "isotonic"] = "logistic"
    """How probabilities are fitted; isotonic needs more images."""
    out: str | None = None
    """Folder for a calibrated copy, which is then used in place of the encoder; a ready encoder needs it. Default: the
    folder of the encoder is changed."""
    skip_unreadable: bool = False
    """Leave out images that cannot be read, with a warning."""
    json: bool = False
    """Print one JSON document."""


@dataclasses.dataclass(frozen=True)
class VerifyArguments:
    """Decide whether two images show the same identity."""

    encoder: Positional[str]
    """Folder of a run or of an encoder, or the name of a ready one."""
    a: Positional[str]
    """First image."""
    b: Positional[str]
    """Second image."""
    fmr: float = 0.001
    """Wanted false match rate: share of pairs of different identities that are accepted."""
    json: bool = False
    """Print one JSON document."""


@dataclasses.dataclass(frozen=True)
class FIDArguments:
    """Compute the Frechet distance of two sets of images, by their embeddings."""

    encoder: Positional[str]
    """Folder of a run or of an encoder, or the name of a ready one."""
    a: Positional[str]
    """Folder of images."""
    b: Positional[str]
    """Folder of images."""
    skip_unreadable: bool = False
    """Leave out images that cannot be read, with a warning."""
    json: bool = False
    """Print one JSON document."""


def encoders(arguments: Sequence[str]) -> None:
    """List the ready encoders."""
    parsed = parse(EncodersArguments, arguments)
    from simjax.encoder import load_encoder, ready_encoders
    from simjax.encoder._model_card import fact_text

    found: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for name in ready_encoders():
        try:
            found[name] = load_encoder(name)
        except InputError as error:  # its weights are in a package that is not installed
            missing[name] = str(error)
    if parsed.json:
        described = [{"name": name} | _description(encoder) for name, encoder in found.items()]
        print_json(described + [{"name": name, "missing": reason} for name, reason in missing.items()])
        return
    for name, encoder in found.items():
        print_line(name)
        description: dict[str, Any] = _description(encoder) | {"calibration": calibration_text(encoder.calibration)}
        results = description.pop("results", {})
        for key, value in description.items():
            print_line(f"  {key.replace('_', ' ')}: {'none' if value is None else value}")
        for key, value in results.items():
            is_of_classifier = encoder.head is None and "(classifier)" in key
            note = ", by the classifier of the training, which is not part of the encoder" if is_of_classifier else ""
            print_line(f"  {_result_name(key)}: {fact_text(value)}{note}")
    for name, reason in missing.items():
        print_line(name)
        print_line(f"  not available: {reason}")


def calibration_text(calibration: Any) -> str:
    """Return what an encoder is calibrated on."""
    if calibration is None:
        return "none, so that it has neither probabilities nor thresholds"
    images, identities = calibration_size(calibration).values()
    return f"{images:,} images of {identities:,} identities that it was not trained on"


def _result_name(key: str) -> str:
    """Return the name of a result with a small first letter and without abbreviations."""
    for abbreviation, words in ABBREVIATIONS.items():
        key = key.replace(abbreviation, words)
    return key if key[1:2].isupper() else key[:1].lower() + key[1:]


def _description(encoder: Any) -> dict[str, Any]:
    config = encoder.config
    return {
        "network": config.network,
        "input": "x".join(map(str, config.preprocessing.image_shape)),
        "embedding_size": encoder.embedding_size,
        "measure": config.measure,
        "classes": None if config.head is None else len(config.class_names),
        "calibration": None if encoder.calibration is None else calibration_size(encoder.calibration),
        **{name: config.about[name] for name in ("source", "licence", "results") if name in config.about},
    }


def embed(arguments: Sequence[str]) -> None:
    """Write the embeddings of images to a file."""
    parsed = parse(EmbedArguments, arguments)
    out = Path(parsed.out)
    check_output("out", parsed.out, (".npz", ".csv"))
    from simjax.encoder import find_images, load_encoder

    enable_compilation_cache()
    encoder = load_encoder(parsed.encoder)
    paths = find_images(parsed.images)
    options: dict[str, Any] = {"batch_size": parsed.batch_size, "normalize": parsed.normalize}
    paths, found = encode_files(encoder, paths, skip_unreadable=parsed.skip_unreadable, **options)
    names = list(map(str, paths))
    if not np.isfinite(found).all():
        first = names[int(np.argmin(np.isfinite(found).all(axis=1)))]
        raise InputError(f"{first}: its embedding is not finite; the encoder {encoder.name} is damaged")
    buffer: Any
    if out.suffix.lower() == ".npz":
        buffer = io.BytesIO()
        np.savez(buffer, embedding=found, path=np.array(names), fingerprint=np.array(encoder.fingerprint))
    else:
        buffer = io.StringIO()
        writer = csv.writer(buffer)
        writer.writerow(["path", *(f"e{i}" for i in range(found.shape[1]))])
        writer.writerows([name, *map(repr, map(float, row))] for name, row in zip(names, found, strict=True))
    content = buffer.getvalue()
    # The bytes of file names that are not UTF-8 are written as they are.
    write_file(out, content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape"))
    if parsed.json:
        sizes = {"embeddings": len(found), "embedding_size": found.shape[1]}
        print_json({"out": str(out), **sizes, "fingerprint": encoder.fingerprint})
    else:
        print_line(f"{quantity(len(found), 'embedding')} of {found.shape[1]} numbers: {out}")


def classify(arguments: Sequence[str]) -> None:
    """Print the most probable classes of images."""
    parsed = parse(ClassifyArguments, arguments)
    check_at_least("top", parsed.top, 1)
    from simjax.encoder import find_images, load_encoder

    enable_compilation_cache()
    encoder = load_encoder(parsed.encoder)
    encoder.check_classifier()
    paths = find_images(parsed.images)
    paths, probabilities = of_readable(
        lambda files: encoder.classify(files, batch_size=parsed.batch_size, progress=encoding_progress()),
        paths,
        encoder,
        skip_unreadable=parsed.skip_unreadable,
    )
    if parsed.top > (classes := len(encoder.class_names)):
        warnings.warn(f"{encoder.name} has only {quantity(classes, 'class', 'classes')}: all are listed", stacklevel=2)
    results = []
    for path, row in zip(paths, probabilities, strict=True):
        best = np.argsort(-row, kind="stable")[: parsed.top]
        classes = [{"class": encoder.class_names[i], "probability": float(row[i])} for i in best]
        results.append({"path": str(path), "classes": classes})
    if parsed.json:
        print_json(results)
        return
    for result in results:
        classes = ", ".join(f"{c['class']} {c['probability']:.4f}" for c in result["classes"])
        print_line(f"{result['path']}: {classes}")


def calibrate(arguments: Sequence[str]) -> None:
    """Calibrate an encoder on images of known identities."""
    parsed = parse(CalibrateArguments, arguments)
    from simjax.encoder import find_identities, load_encoder
    from simjax.encoder._load import encoder_folder
    from simjax.evaluate import Calibration

    if parsed.out is None and _is_ready(parsed.encoder):
        raise InputError(f"{parsed.encoder} is part of simjax and is not changed: `out` names a folder for a copy")
    if parsed.out is not None:
        check_new_folder("out", parsed.out)
    folder = encoder_folder(parsed.encoder) if parsed.out is None else Path(parsed.out)
    enable_compilation_cache()
    encoder = load_encoder(parsed.encoder)
    paths, identities = find_identities(parsed.images)
    files, embeddings = encode_files(encoder, paths, skip_unreadable=parsed.skip_unreadable)
    identities = identities_of(files, paths, identities)
    calibration = Calibration.fit(embeddings, identities, measure=encoder.measure, method=parsed.method)
    encoder.calibrated(calibration).save(folder, overwrite=parsed.out is None)
    thresholds = []
    for rate in (0.001, 0.01, 0.1):  # the first one for which there are enough pairs
        with contextlib.suppress(InputError):
            thresholds.append(calibration.pair_threshold(rate))
            break
    if parsed.json:
        described = [{**vars(threshold), "text": str(threshold)} for threshold in thresholds]
        print_json({"encoder": str(folder), **calibration_size(calibration), "thresholds": described})
        return
    print_line(f"calibrated on {len(files):,} images of {len(set(identities)):,} identities: {folder}")
    for threshold in thresholds:
        print_line(threshold)


def verify(arguments: Sequence[str]) -> None:
    """Compare two images."""
    parsed = parse(VerifyArguments, arguments)
    check_rate("fmr", parsed.fmr)
    from simjax.encoder import load_encoder

    enable_compilation_cache()
    encoder = load_encoder(parsed.encoder)
    pair = encoder.encode([one_image(parsed.a), one_image(parsed.b)])
    score = float(encoder.similarity(pair[:1], pair[1:])[0, 0])
    how_to_calibrate = f"calibrate with `simjax calibrate {parsed.encoder} --images FOLDER`"
    if _is_ready(parsed.encoder):
        how_to_calibrate = (
            f"calibrate a copy with `simjax calibrate {parsed.encoder} --images FOLDER --out COPY`, and use COPY in "
            f"place of {parsed.encoder}"
        )
    print_verification(score, encoder.measure, encoder.calibration, parsed.fmr, how_to_calibrate, as_json=parsed.json)


def _is_ready(encoder: str) -> bool:
    """Return whether an encoder is part of simjax, whose folder is not changed."""
    from simjax.encoder import ready_encoders
    from simjax.encoder._load import READY, encoder_folder

    name, _, size = encoder.rpartition(":")
    if name in ready_encoders() and size.isdecimal():
        return True
    return encoder_folder(encoder).resolve().is_relative_to(READY.resolve())


def fid(arguments: Sequence[str]) -> None:
    """Compute the Frechet distance of two folders of images."""
    parsed = parse(FIDArguments, arguments)
    from simjax.encoder import find_images, load_encoder
    from simjax.similarity import frechet_distance

    enable_compilation_cache()
    encoder = load_encoder(parsed.encoder)
    paths = [find_images(folder) for folder in (parsed.a, parsed.b)]
    files, embeddings = encode_files(encoder, [*paths[0], *paths[1]], skip_unreadable=parsed.skip_unreadable)
    readable = set(files)
    for folder, in_folder in zip((parsed.a, parsed.b), paths, strict=True):
        if readable.isdisjoint(in_folder):
            raise InputError(f"{folder}: no image can be read")
    a, b = np.split(embeddings, [sum(file in readable for file in paths[0])])
    distance = float(frechet_distance(a, b))
    is_biased = min(len(a), len(b)) <= encoder.embedding_size
    if parsed.json:
        sizes = [len(a), len(b)]
        print_json({"frechet_distance": distance, "images": sizes, "encoder": encoder.name, "few_images": is_biased})
    else:
        print_line(f"Frechet distance {distance:.4g} between {len(a):,} and {len(b):,} images, by {encoder.name}")
        if is_biased:
            print_line(
                "the distance of so few images is biased upwards; compare only values for equal numbers of images"
            )
