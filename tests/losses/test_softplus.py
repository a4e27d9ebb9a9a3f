import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simjax.losses._pair_loss import softplus


@pytest.mark.parametrize(("dtype", "rtol"), [(np.float32, 5e-7), (np.float64, 2e-15)])
def test_is_accurate_far_from_zero(dtype, rtol):
    with jax.enable_x64(dtype is np.float64):
        x = np.linspace(-80, 80, 4001, dtype=dtype)
        value, derivative = jax.jit(jax.vmap(jax.value_and_grad(softplus)))(x)
        assert value.dtype == dtype
        limits = softplus(jnp.array([-jnp.inf, jnp.inf, jnp.nan], dtype))
    x = x.astype(np.float64)
    np.testing.assert_allclose(value, np.logaddexp(x, 0), rtol=rtol)
    np.testing.assert_allclose(derivative, 1 / (1 + np.exp(-x)), rtol=rtol)
    np.testing.assert_array_equal(limits, [0, np.inf, np.nan])
