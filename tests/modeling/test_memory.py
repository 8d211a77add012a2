from __future__ import annotations

import os
import platform
import sys

import pytest

from tests import preloaded

# More than any block that glibc would take from its heap by itself (32 MB), so that by default each is fetched anew.
PROGRAM = """
import resource, sys
import torch
from fspo.modeling.memory import keep_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(10 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.ones(20 * 2**20)
fetched = faults()
kept = keep_memory()
torch.ones(20 * 2**20)
print(kept, fetched, faults())
"""


only_glibc = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or "LD_PRELOAD" in os.environ, reason="another C library or allocator"
)


def measured(program: str = PROGRAM, **environment: str) -> list[str]:
    # In a process of its own: it can't be undone.
    done = preloaded.run("-c", program, env={"OMP_NUM_THREADS": "1"} | environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_no_memory_is_kept_where_the_environment_forbids_it() -> None:
    kept, _, after = measured(FSPO_KEEP_MEMORY="0")
    assert kept == "False"
    if sys.platform == "linux":
        assert int(after) > 1000


@only_glibc
def test_kept_memory_is_not_fetched_again() -> None:
    kept, before, after = measured()
    assert kept == "True"
    assert int(before) > 1000
    assert int(after) < 100


# Every second block stays, so the heap can't simply end earlier.
PIECES = """
import torch
from fspo.modeling.memory import give_back_memory, keep_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1])

keep_memory()
blocks = [torch.ones(2**20) for _ in range(40)]
start = resident()
del blocks[::2]
spared = give_back_memory(above=1.0)
before = resident()
print(spared, give_back_memory(above=0.0), start - before, before - resident())
"""


@only_glibc
@pytest.mark.skipif(sys.platform != "linux", reason="the resident memory is read from /proc")
def test_freed_memory_goes_back_to_the_system_above_a_share() -> None:
    spared, given, unasked, freed = measured(PIECES)
    assert (spared, given) == ("False", "True")
    assert int(unasked) < 1000
    assert int(freed) > 15 * 1024  # 20 blocks of 4 MiB, in pages of 4 KiB
