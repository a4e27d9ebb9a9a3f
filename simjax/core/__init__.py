"""The dot product (dense, convolution, scores), blocks of rows, and argument checks."""

from simjax.core._checks import InputError as InputError
from simjax.core._checks import check_choice as check_choice
from simjax.core._checks import suggestion as suggestion
from simjax.core._convolution import convolution as convolution
from simjax.core._convolution import convolution_matrix as convolution_matrix
from simjax.core._convolution import patches as patches
from simjax.core._dot_product import dense as dense
from simjax.core._dot_product import dot_products as dot_products
from simjax.core._rows import map_rows as map_rows
