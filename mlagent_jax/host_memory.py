"""Keeps the memory of a training step for the next step, instead of returning it to the system in between."""

from __future__ import annotations

import ctypes
import platform

# <malloc.h>
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> bool:
    """Makes glibc's malloc keep freed memory for later allocations. Call it before JAX starts its threads.

    XLA on a CPU allocates the temporaries of a whole step at once and frees them at its end. By default glibc maps such
    a block again each time, and the kernel has to provide and clear every page: a tenth of the quickstart's training
    time. The price is that the process never shrinks below its peak memory. Returns whether it took effect; without
    glibc it does nothing.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    unlimited = 2**31 - 1
    # One arena: any others are mapped and unmapped regardless of the thresholds.
    settings = {_M_ARENA_MAX: 1, _M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: unlimited, _M_TOP_PAD: 64 * 2**20}
    return all(mallopt(parameter, value) == 1 for parameter, value in settings.items())
