"""Keys: what is refused as one, what is hidden, and that none of it is ever shown."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from fspo.errors import ConfigError
from fspo.identity import endpoint_identity
from fspo.keys import hidden, hidden_setting, holds_secret, looks_like_key, read_key, secret_in, shown_override
from fspo.llm.endpoint import Endpoint
from fspo.llm.endpoint_config import EndpointConfig
from fspo.llm.types import CompletionRequest, Message
from fspo.runs.config import load_config

PLAIN = "4f9a8b7c6d5e4f3a2b1c"
KEYS = [
    f"sk-{PLAIN}",
    f"sk-proj-{PLAIN}",
    f"sk_live_{PLAIN}",
    f"hf_{PLAIN}",
    f"gsk_{PLAIN}",
    f"ghp_{PLAIN}",
    f"AIzaSy{PLAIN}",
    f"eyJhbGciOiJIUzI1NiJ9.{PLAIN}.x",
]
AT: dict[str, Any] = {"base_url": "http://127.0.0.1:9/v1", "model": "m"}

NAMES = [
    "session_token",
    "access_key",
    "private_key",
    "subscription-key",
    "api_token",
    "apiToken",
    "hf_token",
    "cookie",
    "Set-Cookie",
    "openaiApiKey",
    "X-Api-Token",
    "Proxy-Authorization",
    "client_secret",
    "db_password",
    "token",
    "key",
]
"""Names of settings that hold secrets, as gateways and services call them."""
HARMLESS = [
    "max_tokens",
    "max_completion_tokens",
    "stop_token",
    "stop_token_ids",
    "eos_token",
    "pad_token_id",
    "key_variable",
    "prompt_cache_key",
    "tokenizer",
    "keyboard",
    "skip_special_tokens",
]


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("\u201csk-123\u201d", "quotation marks"),
        ("\u00absk-123\u00bb", "quotation marks"),
        ('"sk-123"', "quotation marks"),
        ("'sk-123'", "quotation marks"),
        ("sk-123\n", "line break"),
        (" sk-123", "space"),
        ("sk-123\u00a0", "space"),
        ("sk-12\u0435", "a character"),
        ("sk-123\x07", "a character"),
        ("", "empty"),
    ],
)
def test_what_is_no_key_is_refused_by_the_variable_s_name_before_anything_is_sent(
    value: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", value)
    with pytest.raises(ConfigError, match=f"^MY_KEY holds no key.*{found}.*set MY_KEY") as caught:
        read_key("MY_KEY")
    assert "123" not in str(caught.value) and "sk-" not in str(caught.value)
    with pytest.raises(ConfigError, match="MY_KEY"):
        Endpoint(EndpointConfig(**AT, key_variable="MY_KEY")).complete([CompletionRequest((Message("user", "Hi"),))])


def test_a_usual_key_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEYS[0])
    assert read_key("MY_KEY") == KEYS[0]
    assert read_key(None) == read_key("NOT_SET_AT_ALL") == ""


@pytest.mark.parametrize("key", [*KEYS, PLAIN, "a" + PLAIN, "hf_abc", "sk_abc", "my key", "MY-KEY", "\u212aEY", ""])
@pytest.mark.parametrize(
    "place",
    [
        "endpoint",
        "ensemble.0.endpoint",
        "evaluation.judges.0.endpoint",
        "evaluation.reward_models.0.endpoint",
        "evaluation.tax.judges.0.endpoint",
    ],
)
def test_a_key_in_the_place_of_a_variable_s_name_is_refused_and_not_shown(key: str, place: str) -> None:
    inner = f"{{base_url: 'http://h/v1', model: m, key_variable: '{key}'}}"
    section, _, _ = place.partition(".0.")
    named = "" if section == "ensemble" else "name: j, "
    override = f"endpoint={inner}" if place == "endpoint" else f"{section}=[{{{named}endpoint: {inner}}}]"
    with pytest.raises(ConfigError, match="name the environment variable that holds the key") as caught:
        load_config(None, [override])
    error: BaseException | None = caught.value
    while error is not None:
        assert not key or key == "MY-KEY" or key not in f"{error}"
        error = error.__cause__
    with pytest.raises(ValidationError, match="never the key itself") as raised:
        EndpointConfig(**AT, key_variable=key)
    assert not key or key not in str(raised.value)


@pytest.mark.parametrize("name", ["MY_KEY", "OPENAI_API_KEY", "HF_TOKEN", "_key2", "my_own_key_for_this_server_2"])
def test_names_of_variables_are_taken(name: str) -> None:
    assert EndpointConfig(**AT, key_variable=name).key_variable == name
    assert not looks_like_key(name)


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"api_key": "x"}, "api_key"),
        ({"user": {"access_token": "x"}}, "user.access_token"),
        ({"headers": [{"Authorization": "Bearer x"}]}, "headers.0.Authorization"),
        ({"metadata": {"who": KEYS[0]}}, "metadata.who"),
        ({"proxy": "http://me:pass@host/"}, "proxy"),
        *(({"more": {name: "abc"}}, f"more.{name}") for name in NAMES),
        ({"headers": {"Cookie": ["abc"]}}, "headers.Cookie"),
        ({"api_key": 123456}, "api_key"),
    ],
)
def test_a_secret_among_further_fields_is_refused_and_not_shown(body: dict[str, object], place: str) -> None:
    with pytest.raises(ValidationError, match=f"'{place}' looks like a secret") as caught:
        EndpointConfig.model_validate({**AT, "extra_body": body})
    assert KEYS[0] not in str(caught.value) and "pass@" not in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_settings_that_hold_secrets_are_known_by_their_names(name: str) -> None:
    assert holds_secret(name, "abc")
    assert "abc" not in hidden_setting(f"endpoint={{{name}: abc}}")
    assert "abc" not in str(endpoint_identity({"model": "m", "extra_body": {"more": [{name: "abc"}]}}))


@pytest.mark.parametrize("name", HARMLESS)
def test_settings_of_a_similar_name_are_no_secrets_and_count(name: str) -> None:
    assert not holds_secret(name, "abc") and secret_in({name: "abc"}) == ""
    assert endpoint_identity({"model": "m", "extra_body": {name: "abc"}})["extra_body"] == {name: "abc"}


def test_a_field_of_a_schema_may_be_named_like_a_secret() -> None:
    schema = {"guided_json": {"properties": {"token": {"type": "string"}, "password": {"type": "string"}}}}
    assert secret_in(schema) == "" and endpoint_identity({"extra_body": schema})["extra_body"] == schema


def test_usual_further_fields_are_taken() -> None:
    body = {
        "max_completion_tokens": 5,
        "chat_template_kwargs": {"enable_thinking": False},
        "stop_token_ids": [1],
        "n": 1,
    }
    assert secret_in({**body, "reasoning_effort": "low", "adapter_id": PLAIN, "token": None, "key": ""}) == ""


@pytest.mark.parametrize("key", KEYS)
def test_keys_are_hidden_wherever_they_stand(key: str) -> None:
    assert hidden(f"no answer for {key}; try again") == "no answer for ...; try again"
    assert hidden("http://me:secret@host/v1") == "http://...@host/v1"
    for argument in (f"name={key}", f"--set=model={key}", f"endpoint={{api_key: {key}}}", f"hub:{key}/data"):
        assert key not in hidden_setting(argument)
        assert key not in shown_override(argument)


@pytest.mark.parametrize(
    "argument",
    [
        "x.token=abc",
        "evaluation.judges=[{name: a, endpoint: {api_key: abc}}]",
        "{password: 'abc'}",
        '{"secret": "abc"}',
    ],
)
def test_values_of_secrets_are_hidden(argument: str) -> None:
    assert "abc" not in hidden_setting(argument) and "abc" not in shown_override(argument)


@pytest.mark.parametrize(
    "text",
    [
        "training.fspo.steps=50",
        "write it as key=value, such as --set training.fspo.steps=50.",
        "evaluation.max_tokens=64",
        "hf_hub_download failed",
        "the task-force2024conclusions",
        "endpoint.key_variable=MY_KEY",
        "runs/reviews-cpu",
    ],
)
def test_usual_words_are_shown(text: str) -> None:
    assert hidden(text) == text
    if not text.startswith(("write it as key=value", "hf_hub")):  # no arguments of a command
        assert hidden_setting(text) == text
