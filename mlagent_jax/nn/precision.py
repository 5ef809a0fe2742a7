"""Compiling bfloat16 programs so that they round where they say they do."""

from __future__ import annotations

# For `jax.jit(compiler_options=...)` of whatever trains or samples. XLA may otherwise keep a bfloat16 result in
# float32 within a fusion; it does so in other places in a trainer than in a sampler, whose log-probs of the same tokens
# then differ by as much as each differs from float32. A float32 program has no such roundings and stays as it is.
AS_WRITTEN = {"xla_allow_excess_precision": False}
