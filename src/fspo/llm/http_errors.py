"""What an OpenAI-compatible server says beside its answers: how long to wait, and why it refuses."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from fspo.llm.replies import said_in

__all__ = ["LONGEST_WAIT", "causes_named", "flagged", "retry_after", "told", "used_up"]

LONGEST_WAIT = 60.0
"""Seconds that a server can make a request wait at a time."""
_TOLD = 200
"""Characters of a server's own message that are shown."""
_PAID_UP = frozenset(
    {
        "insufficient_quota",
        "insufficient_credits",
        "insufficient_balance",
        "insufficient_funds",
        "billing_not_active",
        "billing_hard_limit_reached",
        "credit_balance_too_low",
        "payment_required",
        "exceeded_current_quota_error",
        "arrearage",
    }
)
_USED_UP = re.compile(
    r"insufficient[_ ](?:quota|credits?|balance|account balance)|(?:credit|account) balance is|out of credits?\b"
    r"|balance (?:is )?(?:insufficient|too low)"
    r"|(?:no|any|all) (?:remaining |available )?credits\b|exceeded your current quota|spending limit"
    r"|requires billing|billing (?:hard limit|is not active|not active)|payment required|in arrears"
    r"|your account .{0,40}(?:suspended|overdue|good standing)",
    re.IGNORECASE,
)
"""Phrases that a server has for its customers alone; a person's text may well hold the word billing."""
_QUOTED = re.compile(r"(?<!\w)(['\"`]).*?\1(?!\w)", re.DOTALL)
_FLAGGED = re.compile(r"moderation|flagged|content[_ ](?:policy|filter|management)|safety", re.IGNORECASE)
_PASSES = re.compile(r"(?:retry|try again) in|per[ _]?(?:minute|second|hour)|rate[ _]limit", re.IGNORECASE)


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
    said = said_in(body)
    said = said_in(said) if isinstance(said, dict) else said
    if not said:
        return "it does not say why"
    text = said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)
    text = text.replace(key, "***") if key else text
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return line.rstrip(".") if len(line) <= _TOLD else f"{line[: _TOLD - 3]}..."


def used_up(status: int, body: object, wait: float) -> bool:
    """Whether there is no money or quota left, so that waiting does not help; `wait`: seconds that the server names."""
    if status == 402:
        return True
    if status not in (400, 403, 429) or flagged(body):
        return False
    if _PAID_UP & {name.lower() for name in _fields(body, ("code", "type"))}:
        return True
    said = _QUOTED.sub("", _message(body))  # a server may quote the request
    return not wait and bool(_USED_UP.search(said)) and not _PASSES.search(said)


def flagged(body: object) -> bool:
    """Whether a server refuses the words of this one request, by its own code, type or message."""
    return bool(_FLAGGED.search(" ".join([*_fields(body, ("code", "type")), _message(body)])))


def causes_named(body: object) -> tuple[str, list[str]]:
    """All that an error says, and what it names as the cause: a parameter, or the places of wrong fields."""
    said = said_in(body)
    named = _fields(body, ("param",))
    details = body.get("detail") if isinstance(body, Mapping) else None
    for detail in details if isinstance(details, list) else ():
        place = detail.get("loc") if isinstance(detail, Mapping) else None
        named += [str(part) for part in place] if isinstance(place, list) else []
    text = _whole(said)
    return text, named


def _message(body: object) -> str:
    """The server's own sentence, without the fields beside it, which may repeat the request; else empty."""
    said = said_in(body)
    while isinstance(said, Mapping):
        said = said.get("message")
    return said if isinstance(said, str) else ""


def _whole(said: object) -> str:
    """A message as one text, whatever form it has."""
    while isinstance(said, Mapping) and isinstance(said.get("message"), str | Mapping):
        said = said["message"]
    return said if isinstance(said, str) else json.dumps(said, ensure_ascii=False, default=str)


def _fields(body: object, names: tuple[str, ...]) -> list[str]:
    """What an error, or the error inside of it, has in these fields."""
    found: list[str] = []
    for place in (body, said_in(body)):
        if isinstance(place, Mapping):
            found += [str(place[name]) for name in names if isinstance(place.get(name), str)]
    return found
