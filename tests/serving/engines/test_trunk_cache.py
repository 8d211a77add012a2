from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from fspo.modeling.decoding import KeyValues
from fspo.serving.engines.trunk_cache import Trunk, TrunkCache

BYTES = 8
"""Of one token: a key and a value of one float."""


def read(trunk: Trunk) -> None:
    """Put keys and values that name the tokens."""
    ids = torch.tensor(trunk.ids, dtype=torch.float32).view(1, -1, 1)
    trunk.key_values = KeyValues(((ids, ids.clone()),))


def use(cache: TrunkCache, owner: str, ids: list[int]) -> int:
    """Use a trunk once; returns how many tokens were there before."""
    found = cache.acquire(owner, [ids], BYTES)
    assert found is not None
    ((trunk, known),) = found
    assert trunk.key_values.length == known
    if known:
        assert trunk.key_values.layers[0][0].flatten().tolist() == ids[:known]
    read(trunk)
    cache.release(trunk)
    return known


def test_the_least_recently_used_trunk_goes_first() -> None:
    cache = TrunkCache(3 * 4 * BYTES)
    for owner in "abc":
        assert use(cache, owner, [1, 2, 3, 4]) == 0
    assert use(cache, "a", [1, 2, 3, 4]) == 4
    assert use(cache, "d", [1, 2, 3, 4]) == 0
    assert use(cache, "a", [1, 2, 3, 4]) == 4
    assert use(cache, "b", [1, 2, 3, 4]) == 0
    assert (cache.counts.hits, cache.counts.misses, cache.counts.evictions) == (2, 5, 2)


def test_other_shots_of_the_owner_keep_the_common_beginning_only() -> None:
    cache = TrunkCache(1000)
    use(cache, "a", [1, 2, 3])
    assert use(cache, "a", [1, 2, 3, 4]) == 3
    assert use(cache, "a", [1, 9, 3, 4]) == 1
    assert use(cache, "a", [1, 9]) == 2
    assert cache.nbytes == 2 * BYTES
    assert use(cache, "b", [1, 9]) == 0  # another owner's


def test_a_trunk_in_use_stays_and_others_wait() -> None:
    cache = TrunkCache(4 * BYTES)
    found = cache.acquire("a", [[1, 2, 3]], BYTES)
    assert found is not None
    assert cache.acquire("b", [[1, 2]], BYTES) is None
    cache.forget("a")
    assert cache.nbytes == 3 * BYTES, "it is still in memory"
    assert cache.acquire("b", [[1, 2]], BYTES) is None
    cache.release(found[0][0])
    assert use(cache, "b", [1, 2]) == 0
    assert use(cache, "a", [1, 2, 3]) == 0


def test_a_trunk_larger_than_the_budget_is_read_alone_and_not_kept() -> None:
    cache = TrunkCache(2 * BYTES)
    assert use(cache, "a", [1, 2]) == 0
    assert use(cache, "b", [1, 2, 3]) == 0
    assert (cache.nbytes, len(cache)) == (0, 0)
    assert use(cache, "b", [1, 2, 3]) == 0


def test_both_trunks_of_a_request_have_room_or_neither_and_both_are_forgotten() -> None:
    cache = TrunkCache(6 * BYTES)
    first = cache.acquire("a", [[1, 2], [3, 4]], BYTES)
    assert first is not None and cache.acquire("b", [[1, 2], [3, 4]], BYTES) is None
    for trunk, _ in first:
        read(trunk)
        cache.release(trunk)
    again = cache.acquire("a", [[1, 2], [3, 4]], BYTES)
    assert again is not None and [known for _, known in again] == [2, 2] and len(cache) == 1
    for trunk, _ in again:
        cache.release(trunk)
    cache.forget("a")
    assert (cache.nbytes, len(cache)) == (0, 0)


def test_what_nobody_finished_reading_is_not_kept() -> None:
    cache = TrunkCache(1000)
    found = cache.acquire("a", [[1, 2, 3]], BYTES)
    assert found is not None
    cache.release(found[0][0])
    assert (cache.nbytes, len(cache)) == (0, 0)


@given(
    st.integers(0, 12),
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 6), st.sampled_from(["use", "hold", "forget", "end"]))),
)
def test_the_bytes_are_those_of_the_trunks_in_memory(budget: int, steps: list[tuple[str, int, str]]) -> None:
    cache, held = TrunkCache(budget * BYTES), list[list[Trunk]]()

    def release() -> None:
        for trunk in held.pop():
            cache.release(trunk)

    for owner, length, verb in steps:
        if verb == "forget":
            cache.forget(owner)
        elif verb == "end":
            if held:
                release()
        else:
            texts = [[ord(owner)] * length, [ord(owner) + 100] * length][: 2 if length % 2 else 1]
            found = cache.acquire(owner, texts, BYTES)
            if found is not None:
                held.append([trunk for trunk, _ in found])
                for trunk in held[-1]:
                    read(trunk)
                if verb == "use":
                    release()
        in_use = {trunk for trunks in held for trunk in trunks}
        in_memory = in_use | set(cache._kept.values())
        assert cache.nbytes == sum(trunk.nbytes for trunk in in_memory)
        assert cache.nbytes <= cache.budget or in_memory <= {*held[0]}, "only one request alone exceeds it"
    while held:
        release()
    cache.clear()
    assert cache.nbytes == 0
