"""What counts as a change of a study that has begun."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fspo.errors import ConfigError
from fspo.study.material import load_material
from fspo.study.registration import changed_settings, registration_of
from fspo.study.store import StudyStore
from tests.study.site import study_config


def test_a_study_goes_on_with_a_version_that_has_more_page_texts(tmp_path: Path) -> None:
    config = study_config(tmp_path, languages={"en": {}, "de": {}})
    now = registration_of(config, load_material(config))
    before = json.loads(json.dumps(now))
    for texts in before["design"]["languages"].values():
        del texts["lapsed_heading"]
    store = StudyStore.open(tmp_path / "store")
    assert store.register("small", before)
    assert not store.register("small", now)
    store.enter(config, "en", {}, "one", lambda _: [])
    with pytest.raises(ConfigError, match="languages"):
        store.register("small", {**now, "design": {**now["design"], "languages": {"en": before}}})
    store.close()


@pytest.mark.parametrize("language", ["en", "fr"])
def test_a_text_or_a_language_that_differs_is_a_change(tmp_path: Path, language: str) -> None:
    before = study_config(tmp_path).design()
    texts = {**before["languages"]["en"], "begin_button": "Go"}
    assert changed_settings(before, {**before, "languages": {language: texts}}) == ["languages"]
    assert changed_settings(before, {**before, "participants": 11}) == ["participants"]
    assert changed_settings(before, before) == []


def test_a_study_may_change_until_somebody_takes_part(tmp_path: Path) -> None:
    config, changed = study_config(tmp_path), study_config(tmp_path, participants=11)
    first, second = (registration_of(one, load_material(one)) for one in (config, changed))
    store = StudyStore.open(tmp_path / "store")
    assert store.register("small", first)
    assert store.check_registered("small", second) and not store.check_registered("small", first)
    assert store.registration("small") == first
    assert store.register("small", second) and not store.register("small", second)
    assert store.registration("small") == second
    store.enter(changed, "en", {}, "one", lambda _: [])
    for check in (store.register, store.check_registered):
        with pytest.raises(ConfigError, match="participants"):
            check("small", first)
    assert store.registration("small") == second
    store.close()
