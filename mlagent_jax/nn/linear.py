"""A matrix product whose gradients are written out."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike


def linear(x: jax.Array, kernel: jax.Array, dtype: DTypeLike | None = None) -> jax.Array:
    """x [..., D] @ kernel [D, F], both of one dtype -> [..., F] in `dtype`, x's by default.

    The same function as `x @ kernel`. Its own gradient saves an eighth of a training step on a CPU: autodiff asks
    for the kernel's gradient as the transpose of [F, D], and XLA then transposes activations to make it so.
    """
    product: jax.Array = _linear(x, kernel, jnp.dtype(dtype or x.dtype))
    return product


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _linear(x: jax.Array, kernel: jax.Array, dtype: jnp.dtype) -> jax.Array:
    return _product(x, kernel, dtype)


def _product(x: jax.Array, kernel: jax.Array, dtype: jnp.dtype) -> jax.Array:
    D = kernel.shape[0]
    plain = partial(jnp.matmul, preferred_element_type=dtype)
    if x.size != D or D % 2:
        return plain(x, kernel)
    halves = partial(_row_in_halves, dtype=dtype)
    product: jax.Array = jax.lax.platform_dependent(x, kernel, cpu=halves, default=plain)
    return product


def _row_in_halves(x: jax.Array, kernel: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """One row waits for the kernel from memory; XLA on a CPU leaves a small one to one thread, and halves to two."""
    F = kernel.shape[1]
    halves = jnp.einsum(
        "sd,sdf->sf", x.reshape(2, -1), kernel.reshape(2, -1, F), preferred_element_type=jnp.float32
    )
    return halves.sum(0).astype(dtype).reshape(*x.shape[:-1], F)


def _forward(
    x: jax.Array, kernel: jax.Array, dtype: jnp.dtype
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _product(x, kernel, dtype), (x, kernel)


def _backward(
    dtype: jnp.dtype, residuals: tuple[jax.Array, jax.Array], grad: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    grad = grad.astype(x.dtype)
    dx = jax.lax.dot_general(grad, kernel, (((grad.ndim - 1,), (1,)), ((), ())))
    tokens = tuple(range(x.ndim - 1))
    dkernel = jax.lax.dot_general(x, grad, ((tokens, tokens), ((), ())), preferred_element_type=jnp.float32)
    return dx.astype(x.dtype), dkernel.astype(kernel.dtype)


_linear.defvjp(_forward, _backward)
