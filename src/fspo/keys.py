"""Keys and other secrets: read from the environment, and kept out of files and messages."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from typing import Any

from fspo.errors import ConfigError

__all__ = ["ENVIRONMENT", "hidden", "hidden_setting", "looks_like_key", "read_key", "secret_in", "shown_override"]

ENVIRONMENT = threading.RLock()
"""Held while variables are hidden from a client that is made, and while a key is read."""

_HIDDEN = "..."
_PREFIX = (
    r"(?<![A-Za-z0-9])(?:sk[-_]|gsk_|hf_|gh[opsur]_|github_pat_|glpat-|xai-|nvapi-|pplx-|r8_|fw_|tgp_|csk-|xox[bp]-|"
    r"AIza|AKIA|ASIA|eyJ)"
)
"""How the keys of known services begin; names of environment variables are in capitals."""
_KEY = re.compile(rf"{_PREFIX}[\w.~+/=-]{{3,}}")
_SURE_KEY = re.compile(rf"{_PREFIX}(?=[\w.~+/=-]*\d)[\w.~+/=-]{{16,}}|\b(?:Bearer|Basic) (?=\S*\d)[\w.~+/=-]{{8,}}")
"""Long enough to be nothing else, so that it may be looked for in any sentence."""
_RANDOM = re.compile(r"(?=[A-Za-z0-9]*[a-z])(?=[A-Za-z0-9]*[0-9])[A-Za-z0-9]{20,}")
_LOGIN = re.compile(r"(?<=://)[^/\s@]+(?=@)")
_NAME = re.compile(
    r"(?:.*[-_])?(?:api[-_]?key|(?:access|auth|bearer|id|refresh)[-_]?token|authori[sz]ation|credentials?|pass(?:word|wd)|"
    r"secret|secret[-_]?key)|token|key|auth",
    re.IGNORECASE,
)
"""Names of settings that hold secrets; `max_tokens` and `key_variable` are none."""
_ASSIGNED = re.compile(r"([\w.-]+)(\"?\s*[=:]\s*)(\"[^\"]*\"|'[^']*'|[^\s,{}\[\]]+)")
_ASKED = re.compile(r"endpoint|ensemble|judges|reward_models")
"""Settings that say how somebody is asked."""


def looks_like_key(name: str) -> bool:
    """Whether what is to name something could be the key of a service itself."""
    return bool(_KEY.fullmatch(name) or _RANDOM.fullmatch(name))


def hidden(text: str) -> str:
    """Any sentence, with dots in the place of a key of a known service and of a login in an address."""
    return _LOGIN.sub(_HIDDEN, _SURE_KEY.sub(_HIDDEN, text))


def hidden_setting(assignment: str) -> str:
    """An argument of a command, with dots in the place of whatever may be a secret."""

    def put(found: re.Match[str]) -> str:
        name = found[1].rpartition(".")[2]
        return f"{found[1]}{found[2]}{_HIDDEN}" if _NAME.fullmatch(name) else found[0]

    return _ASSIGNED.sub(put, _KEY.sub(_HIDDEN, hidden(assignment)))


def shown_override(assignment: str) -> str:
    """An override as messages show it: only the name of one that says how somebody is asked, or may hold a secret."""
    if _ASKED.search(assignment) or hidden_setting(assignment) != assignment:
        return f"{hidden_setting(assignment.partition('=')[0])}={_HIDDEN}"
    return assignment


def secret_in(value: Any) -> str:
    """Where a setting holds what looks like a secret, from the top and joined by dots; empty where it holds none."""
    return next(_secrets(value, ()), "")


def _secrets(value: Any, above: tuple[str, ...]) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            place = (*above, str(name))
            if _NAME.fullmatch(str(name)) and isinstance(inner, str) and inner:
                yield ".".join(place)
            yield from _secrets(inner, place)
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _secrets(inner, (*above, str(number)))
    elif isinstance(value, str) and (_KEY.fullmatch(value) or hidden(value) != value):
        yield ".".join(above)


def read_key(variable: str | None) -> str:
    """The key that an environment variable holds; empty where it is not set, or none is named.

    Raises:
        ConfigError: it holds something that no key has; the sentence names the variable and does not show the key.
    """
    with ENVIRONMENT:
        key = os.environ.get(variable, "") if variable else ""
    wrong = _wrong(key)
    if wrong:
        raise ConfigError(f"{variable} holds no key that can be sent: {wrong}; set {variable} to the key alone.")
    return key


def _wrong(key: str) -> str:
    if re.search(r"[\u2018-\u201f\u00ab\u00bb\u2039\u203a]", key) or re.fullmatch(r"([\"']).*\1", key, re.DOTALL):
        return "there are quotation marks in it"
    if re.search(r"\s", key):
        return "there is a space or a line break in it"
    if not key.isascii() or not (key.isprintable() or not key):
        return "there is a character in it that no key has"
    return ""
