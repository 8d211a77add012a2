"""The examples of the serving page and of the README run against a server."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fspo.serving.api import create_app
from fspo.serving.store import Store
from tests.serving.echo import EchoEngine, served

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/serving.md"


def examples(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


def test_the_example_of_the_readme_runs_as_printed(
    sqlite_store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = (code for code in examples(ROOT / "README.md") if "openai" in code)
    sqlite_store.add_user("ann")
    ann = sqlite_store.user_named("ann")
    monkeypatch.setenv("OPENAI_API_KEY", sqlite_store.add_key(ann).key)
    with served(create_app(sqlite_store, EchoEngine())) as url:
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        exec(compile(code, "README.md", "exec"), {})  # the project's own page
    (one,) = sqlite_store.preferences(ann)
    assert one.preference.chosen == "Paterson. It is calm." and one.preference.chosen in capsys.readouterr().out


def test_the_examples_with_openais_client_run(sqlite_store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    code = "\n".join(examples(PAGE))
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
        assert re.sub("{(preference|conversation)}", "ID", path).replace("/{model}", "") in page, path
