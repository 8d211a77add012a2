from __future__ import annotations

import sys

import pytest
from typer.testing import CliRunner

from fspo.cli.extras import extra_of
from fspo.cli.main import app


@pytest.mark.parametrize(
    ("module", "verb", "extra"),
    [
        ("uvicorn", "serve", "serve"),
        ("limits.storage", "users", "serve"),
        ("prometheus_client", "serve", "serve"),
        ("sqlalchemy", "study", "study"),
        ("markdown_it", "study", "study"),
        ("aiohttp", "serve", "endpoint"),
        ("psycopg", "serve", "postgres"),
        ("torch", "run", None),
        ("pytest", "run", None),
        ("", "", None),
    ],
)
def test_a_module_belongs_to_an_extra(module: str, verb: str, extra: str | None) -> None:
    assert extra_of(module, verb) == extra


@pytest.mark.parametrize(
    ("missing", "loaded", "arguments", "extra"),
    [
        ("uvicorn", "fspo.serving.listening", ["serve", "--demo", "--port", "0"], "serve"),
        ("limits", "fspo.serving.rates", ["users", "add", "ann", "--rate", "1/minute"], "serve"),
    ],
)
def test_a_verb_names_the_extra_that_it_lacks(
    missing: str, loaded: str, arguments: list[str], extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, loaded, raising=False)
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 2
    assert f"the extra '{extra}' ({missing} is missing)" in found.output
