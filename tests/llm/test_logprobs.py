"""Log-probs of the first token: wanted or not, given or not, kept, and without a trace where they are off."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from fspo.errors import ConfigError
from fspo.llm.cache import RequestCache, key_of
from fspo.llm.cache_shards import ReadOnlyCache
from fspo.llm.types import Completion, CompletionRequest, Message

REQUEST = CompletionRequest((Message("user", "Hello?"),), prefix="Well", seed=3)
MODEL = {"model": "m", "base_url": "http://here"}


def test_a_request_without_the_wish_has_the_key_that_it_always_had() -> None:
    before = {"messages": [{"role": "user", "content": "Hello?"}], "prefix": "Well", "max_tokens": 64}
    before |= {"temperature": 1.0, "top_p": 1.0, "seed": 3}
    text = json.dumps([MODEL, before], sort_keys=True, ensure_ascii=False)
    assert key_of(MODEL, REQUEST) == hashlib.sha256(text.encode()).hexdigest()
    assert key_of(MODEL, replace(REQUEST, logprobs=5)) != key_of(MODEL, REQUEST)


@pytest.mark.parametrize("count", [-1, 21])
def test_impossible_numbers_are_refused(count: int) -> None:
    with pytest.raises(ConfigError, match="logprobs"):
        replace(REQUEST, logprobs=count)


def test_they_are_kept(tmp_path: Path) -> None:
    cache = RequestCache(tmp_path / "answers.sqlite")
    new = Completion("A", 1, "stop", first=(("A", -0.25), ("B", -1.5)))
    cache.put("new", new)
    cache.put_all({"more": new})
    assert RequestCache(cache.path).get_all(["new", "more"]) == {"new": new, "more": new}
    (tmp_path / "more").mkdir()
    other = RequestCache(tmp_path / "more" / "answers.sqlite")
    other.absorb(cache.path)
    other.settle()
    other.close()
    assert ReadOnlyCache(other.path).get_all(["new"]) == {"new": new}
