"""How this process gets its memory from the system, and what is said where a device has too little."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fspo.errors import FspoError
from fspo.printing import reason_of

__all__ = ["give_back_memory", "keep_memory", "out_of_memory_explained"]

# Names and numbers of glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


def keep_memory() -> bool:
    """Let the C library keep what tensors free, for the tensors to come; whether it can.

    By default glibc takes every large block from the system and gives it back at once, and the system zeroes each page
    of it again when it is first touched: at every activation of every step. Memory kept is memory that no other process
    has, so this is for programs that train. Elsewhere than on glibc, or with another allocator preloaded, nothing
    changes; nor does it where the environment says `FSPO_KEEP_MEMORY=0`.
    """
    if os.environ.get("FSPO_KEEP_MEMORY") == "0":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 64 * 2**20))
    return all([mallopt(name, value) == 1 for name, value in settings])


def give_back_memory(above: float = 0.25) -> bool:
    """Give freed memory back to the system if this process has more than this share of all; whether it did.

    Kept memory falls into pieces as tensors of many sizes come and go, so a training would take more of it with every
    step. Elsewhere than on Linux with glibc nothing happens.
    """
    try:
        resident = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        if resident <= above * os.sysconf("SC_PHYS_PAGES"):
            return False
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError, TypeError, ValueError):
        return False
    return True


@contextmanager
def out_of_memory_explained(kind: type[FspoError], advice: str) -> Iterator[None]:
    """Raise an error of this kind where a device runs out of memory; a context or a decorator.

    `advice` says what to change, as a clause.

    Raises:
        FspoError: of this kind, with the device's own words and the advice.
    """
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        reason = reason_of(error).removeprefix("CUDA out of memory.").strip().split(". ")[0].rstrip(".")
        said = f" ({reason})" if reason else ""
        raise kind(f"The device is out of memory{said}; {advice}.") from error
