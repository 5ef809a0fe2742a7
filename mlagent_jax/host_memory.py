"""Keeping a training step's memory between steps, instead of returning it to the system and faulting it in again."""

from __future__ import annotations

import ctypes
import platform

# <malloc.h>
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> bool:
    """Tells glibc's malloc to keep what is freed for the next allocation; call it before JAX starts its threads.

    XLA on a CPU allocates the temporaries of a whole step at once and frees them at its end. By default glibc maps
    such a block afresh each time, and the kernel must find and clear every page of it: a tenth of the
    quickstart's training time. The price is that the process keeps its peak memory. True where it took effect, False on
    systems without glibc, where it does nothing.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    most = 2**31 - 1
    # One arena: the others are mapped and unmapped whatever the thresholds are.
    settings = {_M_ARENA_MAX: 1, _M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: most, _M_TOP_PAD: 64 * 2**20}
    return all(mallopt(parameter, value) == 1 for parameter, value in settings.items())
