"""A matrix product with handwritten gradients."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float


def linear(
    x: Float[Array, "*B D"], kernel: Float[Array, "D F"], dtype: DTypeLike | None = None
) -> Float[Array, "*B F"]:
    """x @ kernel, both of one dtype, in `dtype` (x's by default).

    The same function as `x @ kernel`, but its own gradient makes a training step on a CPU an eighth faster: autodiff
    computes the kernel's gradient as the transpose of [F, D], for which XLA transposes activations.
    """
    product: Array = _linear(x, kernel, jnp.dtype(dtype or x.dtype))
    return product


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _linear(x: Float[Array, "*B D"], kernel: Float[Array, "D F"], dtype: jnp.dtype) -> Float[Array, "*B F"]:
    return _product(x, kernel, dtype)


def _product(x: Float[Array, "*B D"], kernel: Float[Array, "D F"], dtype: jnp.dtype) -> Float[Array, "*B F"]:
    D = kernel.shape[0]
    plain = partial(jnp.matmul, preferred_element_type=dtype)
    if x.size != D or D % 2:
        return plain(x, kernel)
    halves = partial(_row_in_halves, dtype=dtype)
    product: Array = jax.lax.platform_dependent(x, kernel, cpu=halves, default=plain)
    return product


def _row_in_halves(
    x: Float[Array, "*B D"], kernel: Float[Array, "D F"], dtype: jnp.dtype
) -> Float[Array, "*B F"]:
    """A product of one row is bound by reading the kernel from memory.

    XLA on a CPU gives a small one to one thread, but two halves to two threads.
    """
    F = kernel.shape[1]
    halves = jnp.einsum(
        "sd,sdf->sf", x.reshape(2, -1), kernel.reshape(2, -1, F), preferred_element_type=jnp.float32
    )
    return halves.sum(0).astype(dtype).reshape(*x.shape[:-1], F)


def _forward(
    x: Float[Array, "*B D"], kernel: Float[Array, "D F"], dtype: jnp.dtype
) -> tuple[Float[Array, "*B F"], tuple[Array, Array]]:
    return _product(x, kernel, dtype), (x, kernel)


def _backward(
    dtype: jnp.dtype, residuals: tuple[Array, Array], grad: Float[Array, "*B F"]
) -> tuple[Float[Array, "*B D"], Float[Array, "D F"]]:
    x, kernel = residuals
    grad = grad.astype(x.dtype)
    dx = jax.lax.dot_general(grad, kernel, (((grad.ndim - 1,), (1,)), ((), ())))
    tokens = tuple(range(x.ndim - 1))
    dkernel = jax.lax.dot_general(x, grad, ((tokens, tokens), ((), ())), preferred_element_type=jnp.float32)
    return dx.astype(x.dtype), dkernel.astype(kernel.dtype)


_linear.defvjp(_forward, _backward)
