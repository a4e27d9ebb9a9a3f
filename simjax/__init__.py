"""simjax: similarity learning in JAX.

A filter of a CNN, a neuron of a dense layer and a query of an attention head all take a dot product with something,
and so measure how similar it is to them. Here that can be seen, changed, measured and used.
"""

__version__ = "0.1.0"
