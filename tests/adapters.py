"""What the tests of adapters share."""

from flax.traverse_util import flatten_dict, unflatten_dict

from mlagent_jax.models.lora import factors_of, merged_kernel, partition


def merged(lora, params, dtype=None):
    """The plain model's parameters, with each product added to its kernel, in the kernel's dtype or another."""
    flat, plain = flatten_dict(params), flatten_dict(partition(params)[1])
    for path, leaf in plain.items():
        factors = factors_of(flat, path)
        if factors:
            plain[path] = merged_kernel(lora, leaf, factors).astype(dtype or leaf.dtype)
    return unflatten_dict(plain)
