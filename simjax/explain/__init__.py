"""Why two images are similar: heat maps of their regions, and how faithful a heat map is to the encoder.

A heat map has a value for each pixel of an image as the network sees it (`Encoder.pixels`); a larger value means that
the pixel contributes more to the similarity of the pair. `images` and `others` are images as in `Encoder.encode`; pair
i is images[i] and others[i].
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

__all__ = [
    "METHODS",
    "Faithfulness",
    "attention_by_head",
    "attention_rollout",
    "default_patch_size",
    "faithfulness",
    "grad_cam",
    "heat_maps",
    "mean_attention_distance",
    "occlusion",
    "random_regions",
]
