"""What a CNN and a vision transformer look at: first filters, images on which they disagree, neighbours."""

from typing import Any

import numpy as np

from simjax.data import Dataset
from simjax.encoder import Encoder
from simjax.explain import attention_rollout, class_score, grad_cam
from simjax.similarity import top_k

MAX_DISAGREEMENTS, QUERIES, NEIGHBOURS = 8, 5, 5


def look_inside(cnn: Encoder, vit: Encoder, test: Dataset) -> dict[str, np.ndarray]:
    """Return pictures and maps of two networks for the same test images.

    Args:
        cnn, vit: Encoders with a classifier: a CNN and a vision transformer.
        test: Test images.

    Returns:
        Arrays by name. cnn_filters [k, kh, kw, c] and vit_filters [k, p, p, c]: the weights of the first layer. Of up
        to 8 images on which the classes differ, the most certain first: image [n, h, w, c], label, cnn_class,
        vit_class [n], cnn_map (Grad-CAM of its class) and vit_map (attention rollout) [n, h, w]; count: the number of
        images on which the classes differ, and of all images. Of the 5 queries whose neighbours of their own class
        differ most in number: query [q, h, w, c], query_label [q], and cnn_neighbour, vit_neighbour [q, k, h, w, c]
        with cnn_neighbour_label, vit_neighbour_label [q, k].
    """
    found = {"cnn_filters": _filters(cnn.networks[0]), "vit_filters": _filters(vit.networks[0])}
    probabilities = [encoder.classify(test.images) for encoder in (cnn, vit)]
    first, second = (p.argmax(axis=1) for p in probabilities)
    certainty = np.minimum(*(p.max(axis=1) for p in probabilities))
    rows = np.flatnonzero(first != second)
    found["count"] = np.array([len(rows), len(test.labels)])
    rows = rows[np.argsort(-certainty[rows], kind="stable")][:MAX_DISAGREEMENTS]
    images = test.images[rows]
    found |= {"image": images, "label": test.labels[rows], "cnn_class": first[rows], "vit_class": second[rows]}
    if len(rows):
        names = [cnn.class_names[i] for i in first[rows]]
        found |= {"cnn_map": grad_cam(cnn, images, class_score(cnn, names)), "vit_map": attention_rollout(vit, images)}
    nearest = {name: _nearest(encoder, test.images) for name, encoder in (("cnn", cnn), ("vit", vit))}
    right = {name: (test.labels[rows] == test.labels[:, None]).sum(axis=1) for name, rows in nearest.items()}
    queries = np.argsort(-np.abs(right["cnn"] - right["vit"]), kind="stable")[:QUERIES]
    found |= {"query": test.images[queries], "query_label": test.labels[queries]}
    for name, of_all in nearest.items():
        rows = of_all[queries]
        found |= {f"{name}_neighbour": test.images[rows], f"{name}_neighbour_label": test.labels[rows]}
    return found


def _nearest(encoder: Encoder, images: np.ndarray) -> np.ndarray:
    """Return the numbers of the nearest other images of each image, nearest first, [n, k]."""
    embeddings, k = encoder.encode(images), min(NEIGHBOURS, len(images) - 1)
    _, indices = top_k(embeddings, embeddings, k, encoder.measure, exclude=np.arange(len(images)))
    return np.asarray(indices)


def _filters(network: Any) -> np.ndarray:
    """Return the weights of the first layer of a CNN or a vision transformer as pictures [k, h, w, c]."""
    if hasattr(network, "patch_size"):
        kernel = np.asarray(network.embed_patch.kernel[...])
        kernel = kernel.reshape(network.patch_size, network.patch_size, -1, kernel.shape[-1])
    else:
        kernel = np.asarray(network.layers.layers[0].kernel[...])
    return np.moveaxis(kernel, -1, 0)
