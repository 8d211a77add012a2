"""What a server takes of a request: learned from its refusals, said once, kept, and set by hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from fspo.errors import ModelError
from fspo.llm.cache import RequestCache
from fspo.llm.cache_shards import CacheShard, ReadOnlyCache, absorb_shards, shard_path
from fspo.llm.endpoint import Endpoint, EndpointConfig
from fspo.llm.types import Completion, CompletionRequest, Message
from tests.llm.answering import Server, answer, answering, reply

pytest.importorskip("aiohttp")


def requests(count: int = 6, logprobs: int = 0) -> list[CompletionRequest]:
    turns = (Message("system", "Be brief."), Message("user", "Hello"))
    return [CompletionRequest(turns, max_tokens=20, temperature=0.7, seed=n, logprobs=logprobs) for n in range(count)]


def picky(refusals: Mapping[str, tuple[int, Any]]) -> Any:
    """A server that refuses what it does not take, one thing at a time; `system` is the role."""

    def script(body: dict[str, Any], count: int) -> bytes:
        for name, (status, words) in refusals.items():
            if name in body or (name == "system" and any(turn["role"] == "system" for turn in body["messages"])):
                return reply(words, status)
        return reply(answer())

    return script


def asked(
    server: Server, cache: RequestCache | None = None, said: list[str] | None = None, **settings: Any
) -> Endpoint:
    config = EndpointConfig.model_validate({"base_url": server.address, "model": "m", **settings})
    return Endpoint(config, cache, say=None if said is None else said.append)


def error(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, **more}}


REFUSALS: dict[str, tuple[str, int, Any, str | None]] = {
    "openai": (
        "max_tokens",
        400,
        error(
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens'.",
            param="max_tokens",
            code="unsupported_parameter",
        ),
        "max_completion_tokens",
    ),
    "plain": (
        "max_tokens",
        400,
        error("Unsupported parameter: max_tokens. Use max_completion_tokens."),
        "max_completion_tokens",
    ),
    "only the default": (
        "temperature",
        400,
        error(
            "Unsupported value: 'temperature' does not support 0.7 with this model. Only the default (1) value is "
            "supported.",
            param="temperature",
        ),
        None,
    ),
    "deprecated": ("temperature", 400, error("`temperature` is deprecated for this model."), None),
    "both": ("top_p", 400, error("`temperature` and `top_p` cannot both be specified for this model."), None),
    "extra": (
        "seed",
        422,
        {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]},
        None,
    ),
    "argument": ("seed", 400, error("Unrecognized request argument supplied: seed"), None),
    "additional": ("seed", 400, error("Additional properties are not allowed ('seed' was unexpected)"), None),
    "log-probs": ("logprobs", 400, error("logprobs are not supported"), None),
    "as an answer": ("seed", 200, error("Unknown field: seed"), None),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_parameter_that_is_refused_is_learned_once_said_once_and_kept(kind: str, tmp_path: Path) -> None:
    name, status, words, other = REFUSALS[kind]
    said: list[str] = []
    path = tmp_path / "a.sqlite"
    wanted = requests(logprobs=2)
    with answering(picky({name: (status, words)})) as server:
        answers = asked(server, RequestCache(path), said, requests_in_flight=1).complete(wanted)
        assert [one.text for one in answers] == ["Good."] * 6
        assert len(server.bodies) == 7
        assert (other in server.bodies[-1]) if other else name not in server.bodies[-1]
        assert len(said) == 1 and name in said[0]
        asked(server, RequestCache(path), said).complete(requests(9, logprobs=2))  # a resumed run knows it
    assert len(server.bodies) == 10
    assert len(said) == 1


SYSTEM = [
    (400, error("System role not supported")),
    (500, error("Jinja Exception: System role not supported")),
    (400, error("Conversation roles must alternate user/assistant/user/assistant/...")),
    (400, error("Only user and assistant roles are supported!")),
    (422, {"detail": "Template error: template error: invalid operation: System role not supported"}),
    (
        400,
        error(
            "Unsupported value: 'messages[0].role' does not support 'system' with this model.", param="messages[0].role"
        ),
    ),
    (400, error("Developer instruction is not enabled for models/gemma-3-27b-it")),
]


@pytest.mark.parametrize("place", range(len(SYSTEM)))
def test_without_a_system_role_its_text_goes_before_the_first_users(place: int, tmp_path: Path) -> None:
    said: list[str] = []
    with answering(picky({"system": SYSTEM[place]})) as server:
        answers = asked(server, None, said).complete(requests(3))
    assert [one.text for one in answers] == ["Good."] * 3
    assert server.bodies[-1]["messages"] == [{"role": "user", "content": "Be brief.\n\nHello"}]
    assert len(said) == 1


def test_several_refusals_are_learned_one_after_the_other() -> None:
    refusals = {REFUSALS[kind][0]: REFUSALS[kind][1:3] for kind in ("openai", "only the default", "extra", "both")}
    refusals["system"] = SYSTEM[0]
    with answering(picky(refusals)) as server:
        answers = asked(server, requests_in_flight=8).complete(requests(20))
    assert [one.text for one in answers] == ["Good."] * 20
    assert server.bodies[-1].keys() == {"model", "messages", "max_completion_tokens"}
    assert len(server.bodies) <= 20 + 5 * 8


@pytest.mark.parametrize(
    "words",
    [
        "max_tokens is too large: 20. This model supports at most 16 completion tokens.",
        "This model's maximum context length is 10 tokens. However, you requested 20 in the completion.",
        "temperature must be between 0 and 0.5",
        "The question about a seed is not allowed by our policy.",
        "Your words are not supported.",
    ],
)
def test_a_refusal_of_a_value_or_of_words_teaches_nothing(words: str) -> None:
    refusing = answering(lambda body, count: reply(error(words), 400))
    with refusing as server, pytest.raises(ModelError, match="refuses a request"):
        asked(server).complete(requests(1))
    assert len(server.bodies) <= 2
    assert server.bodies[0].keys() >= {"max_tokens", "temperature", "top_p", "seed"}


def test_what_did_not_help_is_not_kept(tmp_path: Path) -> None:
    cache = RequestCache(tmp_path / "a.sqlite")

    def script(body: dict[str, Any], count: int) -> bytes:
        odd = body["messages"][-1]["content"] == "odd"
        return reply(error("seed: not supported in your words"), 400) if odd else reply(answer())

    odd = CompletionRequest((Message("user", "odd"),))
    with answering(script) as server:
        endpoint = asked(server, cache, requests_in_flight=1)
        said = endpoint.complete([odd, *requests(2)])
    assert [one.finish_reason for one in said] == ["refused", "stop", "stop"]
    assert "seed" in server.bodies[-1]


def test_parameters_are_named_otherwise_or_left_out_by_the_settings(tmp_path: Path) -> None:
    names = {"max_tokens": "max_completion_tokens", "seed": None, "system": "developer"}
    with answering(lambda body, count: reply(answer())) as server:
        asked(server, parameters=names).complete(requests(1))
        asked(server, parameters={"system": None}).complete(requests(1))
    first, second = server.bodies
    assert first.keys() == {"model", "messages", "max_completion_tokens", "temperature", "top_p"}
    assert first["messages"][0] == {"role": "developer", "content": "Be brief."}
    assert [turn["role"] for turn in second["messages"]] == ["user"]


def test_another_name_changes_no_answer_and_a_parameter_left_out_does(tmp_path: Path) -> None:
    cache = RequestCache(tmp_path / "a.sqlite")
    with answering(lambda body, count: reply(answer())) as server:
        for names in ({}, {"max_tokens": "max_completion_tokens"}, {"seed": None}, {"seed": None}):
            asked(server, cache, parameters=names).complete(requests(1))
    assert len(server.bodies) == 2


def test_a_setting_that_is_removed_is_not_learned(tmp_path: Path) -> None:
    path, names = tmp_path / "a.sqlite", {"system": "developer", "max_tokens": "limit"}
    with answering(picky({"seed": (400, error("Unknown field: seed"))})) as server:
        asked(server, RequestCache(path), parameters=names).complete(requests(1))
        asked(server, RequestCache(path)).complete(requests(2))
    assert server.bodies[1]["messages"][0]["role"] == "developer" and "limit" in server.bodies[1]
    assert server.bodies[-1]["messages"][0]["role"] == "system"
    assert "max_tokens" in server.bodies[-1] and "seed" not in server.bodies[-1]


def test_a_lesson_against_a_setting_ends_with_the_setting(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    with answering(picky({"limit": (400, error("Unknown field: limit"))})) as server:
        asked(server, RequestCache(path), parameters={"max_tokens": "limit"}).complete(requests(1))
        asked(server, RequestCache(path)).complete(requests(2))
    assert "max_tokens" not in server.bodies[1] and "max_tokens" in server.bodies[-1]


def test_a_parameter_that_was_learned_may_be_left_out_by_the_settings_too(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    with answering(picky({"seed": (400, error("Unknown field: seed"))})) as server:
        first = asked(server, RequestCache(path)).complete(requests(3))
        sent = len(server.bodies)
        assert asked(server, RequestCache(path), parameters={"seed": None}).complete(requests(3)) == first
        assert len(server.bodies) == sent
        asked(server, RequestCache(path), parameters={"seed": None}).mark_unusable(requests(1))
        RequestCache(path).forget_unusable()
        asked(server, RequestCache(path), parameters={"seed": None}).complete(requests(3))
        assert len(server.bodies) == sent + 1
        asked(server, RequestCache(path), parameters={"top_p": None}).complete(requests(1))
        assert len(server.bodies) == sent + 2  # the server takes that one


def test_a_parameter_that_is_not_sent_is_refused() -> None:
    with pytest.raises(ValidationError, match="fspo sends no parameter 'max_token', but max_tokens, temperature"):
        EndpointConfig(base_url="http://127.0.0.1/v1", model="m", parameters={"max_token": None})


def test_what_is_learned_is_known_to_parts_and_taken_over_from_them(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    own = RequestCache(path)
    own.learn("server", {"names": {"seed": None}})
    own.count("no text")
    own.settle()
    own.close()
    number = shard_path(path, 3)
    part = CacheShard(number, ReadOnlyCache(path))
    assert part.learned("server") == {"names": {"seed": None}}
    part.learn("server", {"names": {"seed": None, "top_p": None}})
    part.put("key", Completion("Good.", 1, "stop"), 1, ("reasoning cut off",))
    part.count("no text")
    part.close()
    absorb_shards(path)
    whole = RequestCache(path)
    assert whole.learned("server") == {"names": {"seed": None, "top_p": None}}
    assert whole.replies() == {"no text": 2, "reasoning cut off": 1}
