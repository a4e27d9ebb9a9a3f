"""The pictures of a study: first filters, images on which two networks disagree, neighbours of the same query."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from simjax.report import _photographs as photographs
from simjax.report._page import Block, Photo, PhotoRow, Photos, Text
from simjax.report._render import shorten

MAX_FILTERS = 32
NETWORKS = {"cnn": "CNN", "vit": "ViT"}


def inside(arrays: Mapping[str, np.ndarray], names: Sequence[str]) -> list[Block]:
    """Show what `simjax.study.look_inside` found; `names` are those of the classes."""
    if not arrays:
        return []
    shown = [shorten(name, 24) for name in names]
    blocks: list[Block] = [_filters(arrays)]
    if len(arrays["label"]):
        blocks.append(_disagreements(arrays, shown))
    else:
        tested = int(arrays["count"][1])
        blocks.append(Text(f"CNN and ViT have the same class for each of {tested:,} test images."))
    return [*blocks, _neighbours(arrays, shown)]


def _filters(arrays: Mapping[str, np.ndarray]) -> Photos:
    """Show the weights of the first layers, each filter on its own scale."""
    rows = []
    for key, name in NETWORKS.items():
        filters = arrays[f"{key}_filters"][:MAX_FILTERS]
        size = "x".join(map(str, filters.shape[1:3]))
        photos = [
            Photo(photographs.source(photographs.signed_picture(weights)), [f"{i}"])
            for i, weights in enumerate(filters, start=1)
        ]
        rows.append(PhotoRow(photos, f"{name}: {len(filters)} filters of {size} pixels"))
    caption = (
        "Weights of the filters of the first layer, each on its own scale, with 0 in grey. A filter responds to "
        "patches that look like it. In the CNN these patches overlap; the ViT cuts the image into patches. Both "
        "networks have the same measure and seed, the first ones of the study."
    )
    return Photos(rows, caption, size=2.6)


def _mark(is_right: bool) -> Literal["right", "wrong"]:
    return "right" if is_right else "wrong"


def _disagreements(arrays: Mapping[str, np.ndarray], names: list[str]) -> Photos:
    """Show images with the classes of both networks, Grad-CAM and attention rollout."""
    count, tested = arrays["count"].tolist()
    rows = []
    for i, true in enumerate(arrays["label"]):
        photos = [Photo(photographs.source(arrays["image"][i]), [names[true], "true class"], "query")]
        for key, name in NETWORKS.items():
            values = arrays[f"{key}_map"][i] - arrays[f"{key}_map"][i].min()
            picture = photographs.heat_map(arrays["image"][i], values, float(values.max()))
            predicted = arrays[f"{key}_class"][i]
            photos.append(Photo(picture, [names[predicted], name], _mark(predicted == true)))
        rows.append(PhotoRow(photos))
    caption = (
        f"Of {tested:,} test images, the two networks classify {count:,} differently; these are the ones of which both "
        "are most certain. Orange: the regions that the CNN's class depends on (Grad-CAM), and the patches that the "
        "ViT attends to (attention rollout). These are different methods, each on its own scale: compare them between "
        "images, not between networks. The command simjax explain draws them for any image."
    )
    return Photos(rows, caption)


def _neighbours(arrays: Mapping[str, np.ndarray], names: list[str]) -> Photos:
    """Show queries with their nearest neighbours in both networks."""
    rows = []
    for i, query in enumerate(arrays["query_label"]):
        for key, name in NETWORKS.items():
            photos = [Photo(photographs.source(arrays["query"][i]), [names[query], name], "query")]
            labels = arrays[f"{key}_neighbour_label"][i]
            for image, label in zip(arrays[f"{key}_neighbour"][i], labels, strict=True):
                photos.append(Photo(photographs.source(image), [names[label]], _mark(label == query)))
            rows.append(PhotoRow(photos))
    caption = (
        "Test images and their nearest other test images by the embeddings of each network: those for which the two "
        "networks differ most in the number of neighbours of the right class. ✓ marks the class of the test image, ✗ "
        "another class."
    )
    return Photos(rows, caption, size=5.0)
