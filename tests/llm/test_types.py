from __future__ import annotations

import pytest

from fspo.errors import ConfigError
from fspo.llm.types import CompletionRequest, Message

ASKED = (Message("user", "Is it good?"),)


def test_a_request_is_a_value() -> None:
    assert CompletionRequest(ASKED, seed=1) == CompletionRequest(ASKED, seed=1)
    assert CompletionRequest(ASKED, seed=1) != CompletionRequest(ASKED, seed=2)


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"max_tokens": 0}, "max_tokens"), ({"temperature": -1.0}, "temperature"), ({"top_p": 0.0}, "top_p")],
)
def test_impossible_settings_are_refused_by_name(settings: dict[str, float], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        CompletionRequest(ASKED, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("messages", [(), (Message("assistant", "Yes."),)])
def test_a_request_ends_with_the_user(messages: tuple[Message, ...]) -> None:
    with pytest.raises(ConfigError, match="user"):
        CompletionRequest(messages)
