"""What a process does with memory that it no longer needs.

glibc raises the size from which a block gets pages of its own to that of the largest block that was ever freed (up to
32 MiB: mallopt(3), ``M_MMAP_THRESHOLD``), and keeps what lies below it. Activations have such sizes: with gradient
checkpointing, a model of twelve layers then took more memory on a processor than without it.
"""

from __future__ import annotations

import ctypes
import platform

_M_MMAP_THRESHOLD = -3
_BYTES = 256 * 1024
"""Ours. Larger blocks go back at once, and each new one costs page faults: memory at the price of time."""


def return_freed_memory() -> bool:
    """Give freed tensors back to the system at once, from now on; whether the C library can do that."""
    if platform.libc_ver()[0] != "glibc":
        return False
    return bool(ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _BYTES))
