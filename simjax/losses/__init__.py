"""Losses that learn similarity: pure functions of embeddings and labels."""

from simjax.losses._contrastive import contrastive_loss as contrastive_loss
from simjax.losses._contrastive import contrastive_terms as contrastive_terms
from simjax.losses._triplet import triplet_margin_loss as triplet_margin_loss
