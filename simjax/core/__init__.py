"""Argument checks and errors, dtype promotion, dot products (dense, convolution), and maps over blocks of rows."""

from simjax.core._arrays import (
    NO_CLASS,
    as_exact_array,
    as_float_array,
    as_host_array,
    as_integer_array,
    as_matrices,
    as_number_array,
    class_ids,
    comparable_ids,
    fits_dtype,
    promote_to_float32,
    replace_non_finite_rows,
)
from simjax.core._blocks import map_rows, rows_per_block, save_for_backward
from simjax.core._checks import (
    InputError,
    check_at_least,
    check_between,
    check_choice,
    check_fraction,
    check_number,
    check_positive,
    suggestion,
)
from simjax.core._convolution import convolution, convolution_matrix, depthwise_convolution, pad_same, patches
from simjax.core._dot_product import current_precision, dense, dot_products, matrix_product, row_products
from simjax.core._fingerprint import fingerprints, mixed_bits, same_fingerprint
from simjax.core._mesh import as_carry, auto_axes, call_on_devices, replicated, take_rows, vary_over_same_axes
from simjax.core._top_k import rank_keys, top_k_of_rows

__all__ = [
    "InputError",
    "NO_CLASS",
    "as_carry",
    "as_exact_array",
    "as_float_array",
    "as_host_array",
    "as_integer_array",
    "as_matrices",
    "as_number_array",
    "auto_axes",
    "call_on_devices",
    "check_at_least",
    "check_between",
    "check_choice",
    "check_fraction",
    "check_number",
    "check_positive",
    "class_ids",
    "comparable_ids",
    "convolution",
    "convolution_matrix",
    "current_precision",
    "dense",
    "depthwise_convolution",
    "dot_products",
    "fingerprints",
    "fits_dtype",
    "map_rows",
    "matrix_product",
    "mixed_bits",
    "pad_same",
    "patches",
    "promote_to_float32",
    "replace_non_finite_rows",
    "rank_keys",
    "replicated",
    "row_products",
    "rows_per_block",
    "same_fingerprint",
    "save_for_backward",
    "suggestion",
    "take_rows",
    "top_k_of_rows",
    "vary_over_same_axes",
]
