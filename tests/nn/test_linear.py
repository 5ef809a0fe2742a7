"""The matrix product against NumPy's, and its gradients against autodiff's, for each way it is computed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlagent_jax.nn.linear import linear

ONE_ROW_OR_MORE = [((1, 1, 6), 4), ((6,), 4), ((1, 7), 4), ((2, 3, 6), 4), ((6, 1), 4)]


@pytest.mark.parametrize(("shape", "out"), ONE_ROW_OR_MORE)
def test_is_the_product(shape: tuple[int, ...], out: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape, np.float32)
    kernel = rng.standard_normal((shape[-1], out), np.float32)
    y = jax.jit(linear)(x, kernel)
    assert y.dtype == jnp.float32
    np.testing.assert_allclose(y, x.astype(float) @ kernel.astype(float), rtol=1e-5, atol=1e-6)
    ours, theirs = (
        jax.grad(lambda x, k, f=f: jnp.sum(jnp.sin(f(x, k))), argnums=(0, 1))(x, kernel)
        for f in (linear, jnp.matmul)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ours, theirs)
