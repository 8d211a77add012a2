"""Keys and other secrets: read from the environment, and kept out of files and messages."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

from fspo.errors import ConfigError

__all__ = [
    "hidden",
    "hidden_setting",
    "holds_secret",
    "looks_like_key",
    "read_key",
    "secret_in",
    "shown_override",
]

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
_SECRET = re.compile(
    r".*(?:keys?|token|secrets?|password|passwd|pwd|passphrase|cookies?|authori[sz]ation|credentials?|bearer)|auth"
)
"""Names of settings that hold secrets, in small letters alone; `maxtokens` and `keyvariable` are none."""
_NO_SECRET = re.compile(
    r".*(?:bos|eos|pad|unk|sep|cls|mask|stop|start|end|begin|special|image|audio|decoder|next|first|last|per)token"
    r"|(?:prompt)?cachekey|(?:sort|primary|foreign|public|group|metadata)keys?"
)
"""Names that end like those of secrets and belong to what a model reads, or to how something is found again."""
_ASSIGNED = re.compile(r"([\w.-]+)(\"?\s*[=:]\s*)(\"[^\"]*\"|'[^']*'|[^\s,{}\[\]]+)")
_ASKED = re.compile(r"endpoint|ensemble|judges|reward_models")
"""Settings that say how somebody is asked."""


def holds_secret(name: str, value: Any) -> bool:
    """Whether a setting of this name and value is a secret, such as `api_key`, `hfToken` or `X-Api-Key`."""
    return _names_secret(name) and _says_something(value)


def _names_secret(name: str) -> bool:
    letters = re.sub(r"[^a-z]", "", name.lower())
    return bool(_SECRET.fullmatch(letters)) and not _NO_SECRET.fullmatch(letters)


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
        return f"{found[1]}{found[2]}{_HIDDEN}" if _names_secret(name) else found[0]

    # Names first: that of `hf_token` begins like a key.
    return _KEY.sub(_HIDDEN, _ASSIGNED.sub(put, hidden(assignment)))


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
            if holds_secret(str(name), inner):
                yield ".".join(place)
            yield from _secrets(inner, place)
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _secrets(inner, (*above, str(number)))
    elif isinstance(value, str) and (_KEY.fullmatch(value) or hidden(value) != value):
        yield ".".join(above)


def _says_something(value: Any) -> bool:
    """Whether there is a text or a number; what settings hold further settings is no secret itself."""
    if isinstance(value, list | tuple):
        return any(map(_says_something, value))
    return bool(value) if isinstance(value, str) else isinstance(value, int | float) and not isinstance(value, bool)


def read_key(variable: str | None) -> str:
    """The key that an environment variable holds; empty where it is not set, or none is named.

    Raises:
        ConfigError: it is set and empty, or holds something that no key has; the sentence names the variable and does
            not show the key.
    """
    key = os.environ.get(variable) if variable else None
    if key is None:
        return ""
    wrong = _wrong(key)
    if wrong:
        raise ConfigError(f"{variable} holds no key that can be sent: {wrong}; set {variable} to the key alone.")
    return key


def _wrong(key: str) -> str:
    if not key:
        return "it is empty"
    if re.search(r"[\u2018-\u201f\u00ab\u00bb\u2039\u203a]", key) or re.fullmatch(r"([\"']).*\1", key, re.DOTALL):
        return "there are quotation marks in it"
    if re.search(r"\s", key):
        return "there is a space or a line break in it"
    if not key.isascii() or not key.isprintable():
        return "there is a character in it that no key has"
    return ""
