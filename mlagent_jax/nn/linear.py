"""A matrix product whose gradients are written out."""

from __future__ import annotations

import jax
import jax.numpy as jnp


@jax.custom_vjp
def linear(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """x [..., D] @ kernel [D, F] -> [..., F], in x's dtype.

    The same function as `x @ kernel`. Its own gradient saves an eighth of a training step on a CPU: autodiff asks
    for the kernel's gradient as the transpose of [F, D], and XLA then transposes activations to make it so.
    """
    return _product(x, kernel)


def _product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    D = kernel.shape[0]
    if x.size != D or D % 2:
        return x @ kernel
    product: jax.Array = jax.lax.platform_dependent(x, kernel, cpu=_row_in_halves, default=jnp.matmul)
    return product


def _row_in_halves(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """One row waits for the kernel from memory; XLA on a CPU leaves a small one to one thread, and halves to two."""
    F = kernel.shape[1]
    halves = jnp.einsum(
        "sd,sdf->sf", x.reshape(2, -1), kernel.reshape(2, -1, F), preferred_element_type=jnp.float32
    )
    return halves.sum(0).astype(x.dtype).reshape(*x.shape[:-1], F)


def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _product(x, kernel), (x, kernel)


def _backward(residuals: tuple[jax.Array, jax.Array], grad: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    dx = jax.lax.dot_general(grad, kernel, (((grad.ndim - 1,), (1,)), ((), ())))
    tokens = tuple(range(x.ndim - 1))
    dkernel = jax.lax.dot_general(x, grad, ((tokens, tokens), ((), ())), preferred_element_type=jnp.float32)
    return dx.astype(x.dtype), dkernel.astype(kernel.dtype)


linear.defvjp(_forward, _backward)
