"""Compiling bfloat16 programs so that they round exactly where the code rounds."""

from __future__ import annotations

# For `jax.jit(compiler_options=...)` of everything that trains or samples. By default XLA may keep a bfloat16 result in
# float32 within a fusion. It does so in different places in a trainer and in a sampler, and their log-probs of the same
# tokens then differ by as much as each differs from float32. A float32 program has no such roundings and is unchanged.
AS_WRITTEN = {"xla_allow_excess_precision": False}
