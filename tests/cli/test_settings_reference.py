"""The settings reference: it says what the types say, and has every key of every configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from fspo.cli import settings_reference
from fspo.cli.settings_reference import setting_keys

ROOT = Path(__file__).parents[2]


def test_the_reference_says_what_the_types_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert settings_reference.main(["--check", str(ROOT / "docs/settings.md")]) == 0
    old = tmp_path / "settings.md"
    old.write_text((ROOT / "docs/settings.md").read_text(encoding="utf-8") + "changed", encoding="utf-8")
    assert settings_reference.main(["--check", str(old)]) == 1
    assert "make docs" in capsys.readouterr().err
    assert settings_reference.main([str(old)]) == 0
    assert settings_reference.main(["--check", str(old)]) == 0


def keys_of(values: Any, above: str = "") -> Iterator[str]:
    """The keys of a file as the reference writes them."""
    named = ("training", "benchmarks", "readers", "adaptations")
    for name, value in values.items() if isinstance(values, dict) else ():
        key = f"{above}.NAME" if above in named else above + name
        if above not in named:
            yield key
        if not key.endswith(("likes", "extra_body", "parameters")):
            yield from keys_of(value, key if key in named else f"{key}.")
    for entry in values if isinstance(values, list) else ():
        yield from keys_of(entry, f"{above.removesuffix('.')}[].")


@pytest.mark.parametrize("name", ["paper", "second"])
def test_every_key_of_a_study_is_in_it(name: str) -> None:
    found = set(keys_of(yaml.safe_load((ROOT / f"configs/study/{name}.yaml").read_text(encoding="utf-8"))))
    named = {re.sub(r"^arms\.\w+", "arms.NAME", key) for key in found} - {"arms.NAME"}
    assert {"matching.length", "consent.text", "attention[].right", "arms.NAME.policy"} <= named
    assert named - setting_keys(study=True) == set()


@pytest.mark.parametrize(
    "path",
    sorted([*(ROOT / "configs").glob("*.yaml"), *(ROOT / "configs").glob("gpu/*.yaml")]),
    ids=lambda path: path.name,
)
def test_every_key_of_a_configuration_is_in_it(path: Path) -> None:
    found = set(keys_of(yaml.safe_load(path.read_text(encoding="utf-8"))))
    assert len(found) > 3
    assert found - setting_keys() == set()


def test_every_row_is_whole_and_shows_the_default() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+) \| (.*) \| (.+) \|$", settings_reference.render(), re.MULTILINE)
    found = {name: (value, default) for name, value, default, _ in rows}
    assert found["label_smoothing"] == ("number, at least 0, below 0.5", "`0.0`")
    assert found["base_url"] == ("text", "required")
    assert found["ladder_queries"] == ("whole number, at least 1; or null", "`null`")
    assert "Config" not in "".join(value for value, _ in found.values())


def test_a_setting_without_a_description_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bare(BaseModel):
        described: int = 1
        """It has one."""
        bare: int = 2

    monkeypatch.setattr("fspo.runs.config.RunConfig", Bare)
    with pytest.raises(LookupError, match="The setting bare of Bare"):
        settings_reference.render()
