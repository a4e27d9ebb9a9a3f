"""The dot product (dense, convolution, scores), the engine that reduces similarity in blocks, and argument checks."""

from simjax.core._arrays import check_at_least as check_at_least
from simjax.core._arrays import floats as floats
from simjax.core._arrays import matrix_rows as matrix_rows
from simjax.core._arrays import wide as wide
from simjax.core._blocks import map_rows as map_rows
from simjax.core._blocks import rows_in_block as rows_in_block
from simjax.core._checks import InputError as InputError
from simjax.core._checks import check_choice as check_choice
from simjax.core._checks import suggestion as suggestion
from simjax.core._convolution import convolution as convolution
from simjax.core._convolution import convolution_matrix as convolution_matrix
from simjax.core._convolution import patches as patches
from simjax.core._coordinates import larger as larger
from simjax.core._coordinates import reduce_pairs as reduce_pairs
from simjax.core._coordinates import reduce_strip as reduce_strip
from simjax.core._dot_product import dense as dense
from simjax.core._dot_product import dot_products as dot_products
from simjax.core._measure import MEASURES as MEASURES
from simjax.core._measure import Measure as Measure
from simjax.core._measure import measure as measure
from simjax.core._reduce import block_size as block_size
from simjax.core._reduce import reduce_rows as reduce_rows
