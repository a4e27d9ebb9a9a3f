import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simjax.losses._softplus import softplus


@pytest.mark.parametrize(("dtype", "rtol"), [(np.float32, 5e-7), (np.float64, 2e-15)])
def test_keeps_its_digits_far_from_zero(dtype, rtol):
    with jax.enable_x64(dtype is np.float64):
        gaps = np.linspace(-80, 80, 4001, dtype=dtype)
        value, slope = jax.jit(jax.vmap(jax.value_and_grad(softplus)))(gaps)
        assert value.dtype == dtype
        ends = softplus(jnp.array([-jnp.inf, jnp.inf, jnp.nan], dtype))
    gaps = gaps.astype(np.float64)
    np.testing.assert_allclose(value, np.logaddexp(gaps, 0), rtol=rtol)
    np.testing.assert_allclose(slope, 1 / (1 + np.exp(-gaps)), rtol=rtol)
    np.testing.assert_array_equal(ends, [0, np.inf, np.nan])
