"""What goes to an OpenAI-compatible server and comes back: messages, answers, waiting times, refusals."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from fspo.llm.types import Completion, CompletionRequest

__all__ = ["LONGEST_WAIT", "completion_of", "counted", "logprobs_of", "messages_of", "retry_after", "told"]

LONGEST_WAIT = 60.0
"""Seconds that a server can make a request wait at a time."""
_THOUGHTS = re.compile(r"\A\s*<think>.*?(?:</think>|\Z)", re.DOTALL)
_TOLD = 200
"""Characters of a server's own message that are shown."""


def messages_of(request: CompletionRequest) -> list[Any]:
    """The turns as the API takes them; a prefix is asked for in words, since no server can be made to begin with it."""
    turns = [{"role": message.role, "content": message.content} for message in request.messages]
    if request.prefix:
        turns[-1]["content"] += f"\n\nBegin your answer with these words: {request.prefix}"
    return turns


def logprobs_of(request: CompletionRequest) -> dict[str, Any]:
    """The wish for log-probs as the API takes it; nothing where there is none, since some servers refuse the word."""
    return {"logprobs": True, "top_logprobs": request.logprobs} if request.logprobs else {}


def completion_of(request: CompletionRequest, answer: Mapping[str, Any]) -> Completion:
    """What an answer holds, without the prefix that was asked for and without thoughts before it.

    Raises:
        LookupError: it holds no choice.
        TypeError: it has another form.
    """
    choice = answer["choices"][0]
    # An answer without text, such as a refusal that came as one, is an empty text: a reject further on, not a crash.
    text = _THOUGHTS.sub("", _whole(choice["message"].get("content") or "")).strip()
    tokens = counted(answer, "completion_tokens")
    begun = request.prefix.strip()
    taken_up = text.lower().startswith(begun.lower())
    return Completion(
        text[len(begun) :] if taken_up else text,
        len(text.encode()) if tokens is None else tokens,  # at most so many
        "length" if choice.get("finish_reason") == "length" else "stop",
        anew=bool(begun) and not taken_up,
        first=_first_tokens(choice) if request.logprobs else (),
    )


def _whole(text: str) -> str:
    """Without halves of surrogate pairs, which fit into no file."""
    return text.encode("utf-8", "replace").decode()


def _first_tokens(choice: Mapping[str, Any]) -> tuple[tuple[str, float], ...]:
    """The likeliest first tokens with their log-probs; none where the server gives none, or in another form."""
    try:
        entries = choice["logprobs"]["content"][0]["top_logprobs"]
        found = [(str(entry["token"]), float(entry["logprob"])) for entry in entries]
    except (AttributeError, LookupError, TypeError, ValueError):
        return ()
    return tuple((token, min(0.0, log_prob)) for token, log_prob in found if not math.isnan(log_prob))


def counted(answer: Mapping[str, Any], name: str) -> int | None:
    """A count of tokens in an answer, where the server gives one."""
    usage = answer.get("usage")
    count = usage.get(name) if isinstance(usage, Mapping) else None
    return count if isinstance(count, int) and count >= 0 else None


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that the server asks to wait, at most `LONGEST_WAIT`; 0 where it does not say."""
    for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * scale
        except ValueError:
            try:
                until = parsedate_to_datetime(value)
            except (TypeError, ValueError):
                continue
            seconds = until.timestamp() - time.time()
        if math.isfinite(seconds):
            return min(LONGEST_WAIT, max(0.0, seconds))
    return 0.0


def told(body: object, key: str) -> str:
    """A server's own message on one line, without the key and not longer than a sentence."""
    said = (body.get("message") or body.get("detail") or body) if isinstance(body, dict) else body
    if not said:
        return "it does not say why"
    text = said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)
    text = text.replace(key, "***") if key else text
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return line.rstrip(".") if len(line) <= _TOLD else f"{line[: _TOLD - 3]}..."
