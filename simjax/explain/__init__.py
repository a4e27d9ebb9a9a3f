"""Why two images are similar, or an image has a class: heat maps of regions, and how faithful they are to the encoder.

A heat map has a value for each pixel of an image as the network sees it (`Encoder.pixels`); a larger value means that
the pixel contributes more to the score that is explained: the similarity of images[i] to others[i] (`similarity_to`),
or the probability of a class (`class_score`). Images are given as in `Encoder.encode`.
"""

from simjax.explain._attention_distance import mean_attention_distance
from simjax.explain._faithfulness import Faithfulness, faithfulness
from simjax.explain._heat_maps import (
    METHODS,
    attention_by_head,
    attention_rollout,
    grad_cam,
    heat_maps,
    occlusion,
    random_regions,
)
from simjax.explain._patches import default_patch_size
from simjax.explain._targets import Target, class_score, similarity_to

__all__ = [
    "METHODS",
    "Faithfulness",
    "Target",
    "attention_by_head",
    "attention_rollout",
    "class_score",
    "default_patch_size",
    "faithfulness",
    "grad_cam",
    "heat_maps",
    "mean_attention_distance",
    "occlusion",
    "random_regions",
    "similarity_to",
]
