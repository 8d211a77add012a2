"""What a server takes of a request: parameters under other names or none, and whether it knows a system role.

A server that refuses a parameter says so; what it says is learned once (`lesson`) and kept with its answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from fspo.llm.types import CompletionRequest, without_system

__all__ = ["PARAMETERS", "SYSTEM", "Names", "body_of", "in_words", "lesson", "renamed"]

SYSTEM = "system"
"""The role, which can be renamed or left out as a parameter can."""
PARAMETERS = ("max_tokens", "temperature", "top_p", "seed", "logprobs", "top_logprobs", SYSTEM)
"""What can be called otherwise or left out of a request."""

_INSTEAD = MappingProxyType({"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"})
"""What to try before a parameter is left out that should not be."""

_UNKNOWN = re.compile(
    r"unsupported|not\s+(?:be\s+)?(?:supported|support|permitted|allowed|available|recogni[sz]ed|accepted|valid|known)"
    r"|n't\s+(?:support|allow|accept|recogni[sz]e)|un(?:recogni[sz]ed|known|expected)"
    r"|extra[ _](?:forbidden|inputs?|field)|deprecated|no\s+longer|only the default|cannot be (?:used|set|specified)"
    r"|can't be (?:used|set)|cannot both|incompatible|invalid (?:parameter|argument|field)|not implemented",
    re.IGNORECASE,
)
_OUT_OF_RANGE = re.compile(
    r"too (?:large|long|big|high|small|low|many)|at (?:most|least)|must be (?:between|in|less|greater|at|a |an |>|<|\d)"
    r"|maximum|exceed|range|between|less than|greater than",
    re.IGNORECASE,
)
"""A value is wrong, and the parameter may well be known."""
_SURE = re.compile(r"only the default|unsupported|extra[ _]", re.IGNORECASE)
_BOTH = re.compile(r"\bboth\b", re.IGNORECASE)
"""Of temperature and top_p some servers take one."""
_NO_SYSTEM = re.compile(
    r"system.{0,40}(?:role|messages?|prompts?|instructions?).{0,60}(?:support|allow|permit|invalid|expected|enabled)"
    r"|(?:support|allow|permit|invalid|unexpected|unknown).{0,60}\bsystem\b.{0,20}(?:role|messages?|prompts?|$)"
    r"|role.{0,60}(?:support|allow|permit|invalid|unexpected|unknown).{0,40}\bsystem\b"
    r"|(?:invalid|unexpected|unknown|unsupported).{0,20}roles?.{0,20}\bsystem\b"
    r"|only (?:the )?['\"]?user['\"]?,? (?:and|or) (?:the )?['\"]?(?:assistant|model)['\"]? roles?"
    r"|roles must alternate|developer instruction is not enabled",
    re.IGNORECASE | re.DOTALL,
)
_QUOTED = r"(?<![\w.-])['\"`]?{}['\"`]?(?![\w-])"


Names = Mapping[str, str | None]
"""Parameter -> the name that it has at a server; None where it is left out. Others have their own name."""


def body_of(model: str, request: CompletionRequest, names: Names, more: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a request, as this server takes them."""
    body: dict[str, Any] = {
        "model": model,
        "messages": _turns(request, names.get(SYSTEM, SYSTEM)),
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed,
    }
    if request.logprobs:  # else not a word of them, since some servers refuse the word
        body |= {"logprobs": True, "top_logprobs": request.logprobs}
    body = renamed(body, names)
    if "logprobs" not in body:
        body.pop("top_logprobs", None)
    return {**body, **more} if more else body


def renamed(body: Mapping[str, Any], names: Names) -> dict[str, Any]:
    """The fields under the names that the server has for them, without those that it refuses."""
    found = {name: value for name, value in body.items() if name not in names}
    return found | {other: body[name] for name, other in names.items() if name in body and other is not None}


def _turns(request: CompletionRequest, system: str | None) -> list[dict[str, Any]]:
    """The turns as the API takes them; a prefix is asked for in words, since no server can be made to begin with it."""
    messages = request.messages if system is not None else without_system(request.messages)
    turns = [
        {"role": (system if message.role == SYSTEM else message.role), "content": message.content}
        for message in messages
    ]
    if request.prefix:
        turns[-1]["content"] = f"{turns[-1]['content']}\n\nBegin your answer with these words: {request.prefix}"
    return turns


def lesson(said: str, named: Sequence[str], request: CompletionRequest, names: Names) -> Names | None:
    """How to ask a server that refused a request with these names; None where its words name nothing to change.

    `said` is all that it said, `named` what it names as the cause in fields of their own, and `names` how it was asked.
    """
    roles = {message.role for message in request.messages}
    if SYSTEM in roles and names.get(SYSTEM, SYSTEM) is not None and _NO_SYSTEM.search(said):
        return {**names, SYSTEM: None}
    if not _UNKNOWN.search(said) or (_OUT_OF_RANGE.search(said) and not _SURE.search(said)):
        return None
    sent = {names.get(name, name): name for name in PARAMETERS if name != SYSTEM}
    if not request.logprobs:
        sent = {other: name for other, name in sent.items() if name not in ("logprobs", "top_logprobs")}
    found = [other for other in sent if other is not None and other in named] or _mentioned(said, sent)
    if not found:
        return None
    changed: dict[str, str | None] = {}
    for other in found:
        name = sent[other]
        changed[name] = _INSTEAD.get(other) if name not in names else None
    return {**names, **changed}


def _mentioned(said: str, names: Iterable[str | None]) -> list[str]:
    """The one of these names that is refused: where several are mentioned, the later ones are what to use instead."""
    places = {}
    for name in names:
        mention = re.search(_QUOTED.format(re.escape(name)), said) if name is not None else None
        if name is not None and mention is not None:
            places[name] = mention.start()
    if "top_p" in places and _BOTH.search(said):
        return ["top_p"]
    return [min(places, key=lambda name: places[name])] if places else []


def in_words(learned: Names) -> str:
    """What was learned, as the end of a sentence; empty where it was nothing."""
    found = []
    for name, other in learned.items():
        if name == SYSTEM and other is None:
            found.append("it knows no system role, so system text goes before the first user message")
        elif other is None:
            found.append(f"it takes no {name}, which is left out")
        else:
            found.append(f"it takes {other} in place of {name}")
    return "; ".join(found)
