from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import fspo

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


def measured(**environment: str) -> list[str]:
    # In a process of its own: it can't be undone.
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={"PYTHONPATH": str(Path(fspo.__file__).parents[1]), "OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_no_memory_is_kept_where_the_environment_forbids_it() -> None:
    kept, _, after = measured(FSPO_KEEP_MEMORY="0")
    assert kept == "False"
    if sys.platform == "linux":
        assert int(after) > 1000


def test_kept_memory_is_not_fetched_again() -> None:
    kept, before, after = measured()
    if kept != "True":
        pytest.skip("another C library or allocator")
    assert int(before) > 1000
    assert int(after) < 100
