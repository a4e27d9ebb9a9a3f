"""Attention as a softmax over similarities; pure functions."""

from simjax.attention._attention import AttentionOptions, attention, dot_product_attention

__all__ = ["AttentionOptions", "attention", "dot_product_attention"]
