"""Measures of similarity and distance, the matrix of a measure, and exact search."""

from simjax.similarity._measure import Measure as Measure
from simjax.similarity._measure import measure as measure
from simjax.similarity._search import pairwise as pairwise
from simjax.similarity._search import top_k as top_k
from simjax.similarity._vectors import cosine_distance as cosine_distance
from simjax.similarity._vectors import cosine_similarity as cosine_similarity
from simjax.similarity._vectors import dot_product as dot_product
from simjax.similarity._vectors import euclidean_distance as euclidean_distance
from simjax.similarity._vectors import squared_euclidean_distance as squared_euclidean_distance
from simjax.similarity._vectors import unit_vectors as unit_vectors
