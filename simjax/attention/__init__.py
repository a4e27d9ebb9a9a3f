"""Attention as a softmax over similarities; pure functions."""

from simjax.attention._attention import attention as attention
from simjax.attention._dot_product_attention import dot_product_attention as dot_product_attention
