"""Measures of similarity and distance, the matrix of a measure, and exact search."""

from simjax.core import Measure as Measure
from simjax.core import measure as measure
from simjax.similarity._dot_products import cosine_distance as cosine_distance
from simjax.similarity._dot_products import cosine_similarity as cosine_similarity
from simjax.similarity._dot_products import dot_product as dot_product
from simjax.similarity._dot_products import unit_vectors as unit_vectors
from simjax.similarity._euclidean import euclidean_distance as euclidean_distance
from simjax.similarity._euclidean import squared_euclidean_distance as squared_euclidean_distance
from simjax.similarity._manhattan import manhattan_distance as manhattan_distance
from simjax.similarity._search import pairwise as pairwise
from simjax.similarity._search import top_k as top_k
