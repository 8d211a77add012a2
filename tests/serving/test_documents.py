"""The example of the serving page runs against a server."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fspo.serving.api import create_app
from fspo.serving.store import Store
from tests.serving.echo import EchoEngine, served

PAGE = Path(__file__).parents[2] / "docs/serving.md"


def test_the_examples_with_openais_client_run(sqlite_store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL))
    sqlite_store.add_user("ann")
    key = sqlite_store.add_key(sqlite_store.user_named("ann")).key
    names = {"KEY": key}
    with served(create_app(sqlite_store, EchoEngine())) as names["URL"]:
        exec(compile(code, PAGE.name, "exec"), names)  # the project's own page
    answer, shots = capsys.readouterr().out.splitlines()
    assert "Paterson. It is calm." in answer and "pref_" in shots
    (edited,) = sqlite_store.preferences(sqlite_store.user_named("ann"))
    assert edited.origin == "edit" and edited.preference.prompt == "Recommend a song."


def test_every_route_is_in_the_table(sqlite_store: Store) -> None:
    page = PAGE.read_text()
    for path in create_app(sqlite_store, EchoEngine()).openapi()["paths"]:
        assert path.replace("{preference}", "ID").replace("/{model}", "") in page, path
