"""Attention as a softmax over similarities; pure functions."""

from simjax.attention._attention import attention
from simjax.attention._dot_product_attention import dot_product_attention

__all__ = [
    "attention",
    "dot_product_attention",
]
