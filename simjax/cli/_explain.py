"""`simjax explain`: which regions make two images similar, or give an image its class."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from tyro.conf import Positional, arg

from simjax._compilation_cache import enable_compilation_cache
from simjax.cli._arguments import parse
from simjax.cli._gallery import open_gallery
from simjax.cli._images import encoding_progress, one_image
from simjax.cli._results import PRIOR, check_output, open_page, print_json
from simjax.core import InputError
from simjax.train._progress import print_line

RANDOM = "random regions"
ORDERS = 10  # random orders of the patches, with which the methods are compared


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExplainArguments:
    """Show which regions make two images similar, or give an image its class.

    The page has heat maps, and how faithful they are.
    """

    encoder: Positional[str]
    """Folder of a run or of an encoder, or the name of a ready one."""
    a: Positional[str]
    """First image."""
    b: Positional[str | None] = None
    """Second image, or a folder, of which the image closest to A is taken. Default: the class of A is explained, if the
    encoder has a classifier."""
    out: str
    """Page to write (.html)."""
    gallery: str | None = None
    """Gallery, of which the item closest to A is the second image."""
    class_name: Annotated[str | None, arg(name="class")] = None
    """Class to explain. Default: the most probable one."""
    methods: tuple[str, ...] | None = None
    """Heat maps: grad_cam, attention_rollout, occlusion. Default: all that the encoder supports."""
    patch_size: int | None = None
    """Side of the patches that are removed, in pixels of the network's input. Default: that of a vision transformer, or
    an eighth of the shorter side."""
    fill: Literal["mean", "blur"] = "mean"
    """Replaces removed patches: the mean of the preprocessing (that of the training images; a middle grey for
    efficientnet-lite0), or the blurred image."""
    json: bool = False
    """Print one JSON document."""
    open: bool = False
    """Open the page in the web browser."""


class Subject(NamedTuple):
    """What is explained.

    Attributes:
        paths: One or two images.
        target: A `simjax.explain.Target` with their scores.
        score: Name of the score.
        summary: The score in words.
        result: Content of the JSON document.
        class_name: Name of the class, or None for a similarity.
    """

    paths: list[Path]
    target: Any
    score: str
    summary: str
    result: dict[str, Any]
    class_name: str | None = None


def explain(arguments: Sequence[str]) -> None:
    """Explain the similarity of two images or the class of one, write the page and print the numbers."""
    parsed = parse(ExplainArguments, arguments)
    check_output("out", parsed.out, (".html", ".htm"))
    from simjax import explain
    from simjax.encoder import load_encoder
    from simjax.report._explanation import CURVES, Explanation, write_explanation

    enable_compilation_cache()
    encoder = load_encoder(parsed.encoder)
    subject = _subject(encoder, one_image(parsed.a), parsed)
    images = encoder.pixels(subject.paths)
    patch_size = explain.default_patch_size(encoder) if parsed.patch_size is None else parsed.patch_size
    options: dict[str, Any] = {"patch_size": patch_size, "fill": parsed.fill}
    maps = explain.heat_maps(encoder, images, subject.target, parsed.methods, **options)

    random = [explain.random_regions(encoder, images, patch_size=patch_size, seed=seed) for seed in range(ORDERS)]
    progress, found = encoding_progress(), []
    for seed, heat_maps in enumerate([*maps.values(), *random]):
        found.append(explain.faithfulness(encoder, images, subject.target, heat_maps, **options, seed=seed))
        progress("removing and adding patches", len(found), len(maps) + ORDERS)
    curves = np.stack([[f.deletion, f.insertion] for f in found])
    random_curves = curves[len(maps) :]
    curves_by_name = dict(zip([*maps, RANDOM], [*curves[: len(maps)], random_curves.mean(axis=0)], strict=True))

    has_attention = hasattr(encoder.networks[0], "attention_to_patches")
    explanation = Explanation(
        names=[path.name for path in subject.paths],
        images=images,
        heat_maps=maps,
        attention=explain.attention_by_head(encoder, images) if has_attention else None,
        patch_size=explain.default_patch_size(encoder),
        share=found[0].share,
        curves=curves_by_name,
        random_curves=random_curves,
        score=subject.score,
        class_name=subject.class_name,
    )
    title, lead = " and ".join(explanation.names), f"{subject.summary}, by {encoder.name}"
    write_explanation(Path(parsed.out), title, lead, explanation)
    areas = {name: explanation.areas(of_name) for name, of_name in curves_by_name.items()}
    if parsed.json:
        result = subject.result | {"patch_size": patch_size, "fill": parsed.fill}
        result["areas"] = {name: dict(zip(CURVES, area.tolist(), strict=True)) for name, area in areas.items()}
        result["random_ranges"] = dict(zip(CURVES, explanation.random_ranges().tolist(), strict=True))
        print_json(result)
    else:
        print_line(f"{' and '.join(map(str, subject.paths))}: {subject.summary}")
        areas_of = "area under the curve" + (", mean of both images" if len(images) > 1 else "")
        print_line(f"{areas_of}  (deletion: lower is more faithful, insertion: higher)")
        for name, (deletion, insertion) in areas.items():
            print_line(f"  {name}: deletion {deletion.mean():.4f}, insertion {insertion.mean():.4f}")
    print_line(f"page: {parsed.out}", stderr=True)
    if parsed.open:
        open_page(parsed.out)


def _subject(encoder: Any, a: Path, parsed: ExplainArguments) -> Subject:
    """Return the similarity to a second image if one is given, else the class of the image."""
    if parsed.b is None and parsed.gallery is None:
        if encoder.head is not None or parsed.class_name is not None:
            return _class_of(encoder, a, parsed.class_name)
        raise InputError(
            f"expected a second image or `gallery`, got neither, and {encoder.name} has no classifier, as cifar10-cnn "
            "and runs with the objective softmax have"
        )
    if parsed.class_name is not None:
        raise InputError("expected `class_name` without a second image or `gallery`: a similarity has no class")
    return _similarity_of(encoder, a, parsed)


def _class_of(encoder: Any, a: Path, given: str | None) -> Subject:
    """Return the given class, or the most probable class of the image."""
    from simjax.explain import class_score

    (probabilities,) = encoder.classify(a)
    best: str = encoder.class_names[int(probabilities.argmax())]
    name = best if given is None else given
    target = class_score(encoder, [name])
    probability, highest = float(probabilities[encoder.class_names.index(name)]), float(probabilities.max())
    summary = f"class {name}, probability {probability:.4f}"
    if name != best:
        summary += f" (most probable: {best}, {highest:.4f})"
    result = {"a": str(a), "class": name, "probability": probability, "predicted": best}
    return Subject([a], target, "probability", summary, result, name)


def _similarity_of(encoder: Any, a: Path, parsed: ExplainArguments) -> Subject:
    """Return the similarity of the image and of the second image, each to the other one."""
    from simjax.explain import similarity_to

    b, calibration = _second_image(encoder, a, parsed)
    measure, score = encoder.measure, float(encoder.similarity([a], [b])[0, 0])
    probability = None if calibration is None else float(calibration.probability(score))
    summary = f"{measure.name} {score:.4f}"
    if probability is not None:
        summary += f", probability of same {probability:.3f} {PRIOR}"
    result = {"a": str(a), "b": str(b), "measure": measure.name, "score": score, "probability": probability}
    name = measure.name if measure.higher_is_closer else f"- {measure.name}"
    return Subject([a, b], similarity_to(encoder, [b, a]), name, summary, result)


def _second_image(encoder: Any, a: Path, parsed: ExplainArguments) -> tuple[Path, Any]:
    """Return the second image, and the calibration of the gallery or of the encoder."""
    if parsed.b is not None and parsed.gallery is None:
        b = _closest_in_folder(encoder, a, parsed.b) if os.path.isdir(parsed.b) else one_image(parsed.b)
        return b, encoder.calibration
    if parsed.gallery is not None and parsed.b is None:
        return _closest_in_gallery(encoder, a, parsed.gallery)
    raise InputError("expected a second image or `gallery`, not both")


def _closest_in_folder(encoder: Any, a: Path, folder: str) -> Path:
    """Return the image in a folder that is closest to image a, other than that image."""
    from simjax.encoder import find_images
    from simjax.similarity import top_k

    paths = [path for path in find_images(folder) if not path.samefile(a)]
    if not paths:
        raise InputError(f"{folder}: has no image other than {a}")
    _, closest = top_k(encoder.encode(a), encoder.encode(paths), 1, encoder.measure)
    return paths[int(closest[0, 0])]


def _closest_in_gallery(encoder: Any, a: Path, path: str) -> tuple[Path, Any]:
    """Return the image of the item that is closest to image a, other than that image, and the calibration."""
    with open_gallery(path, encoder) as gallery:
        size, k, hits = len(gallery), 0, []
        while not hits and k < size:  # an image can have been added several times
            k = min(max(2, 2 * k), size)
            (result,) = gallery.search([a], k)
            hits = [hit for hit in result.hits if not _is_same_file(hit.path, a)]
        if not hits:
            raise InputError(f"{path}: has no item other than {a}")
        if hits[0].path is None:
            raise InputError(f"{path}: item {hits[0].id}, the closest one, has no image file")
        return one_image(hits[0].path), gallery.calibration


def _is_same_file(path: str | None, image: Path) -> bool:
    """Return whether the path of an item, whose file may no longer exist, is that of an image, in any spelling."""
    return path is not None and os.path.exists(path) and os.path.samefile(path, image)
