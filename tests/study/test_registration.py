"""What counts as a change of a study that has begun."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fspo.errors import ConfigError
from fspo.study.material import load_material
from fspo.study.registration import changed_settings, registration_of
from fspo.study.store import StudyStore
from fspo.study.texts import LANGUAGES
from tests.study.site import ARMS, study_config

BOTH = {"en": {}, "de": {}}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StudyStore]:
    opened = StudyStore.open(tmp_path / "store")
    yield opened
    opened.close()


def registered(folder: Path, weights: dict[str, str | None] | None = None, **changes: Any) -> dict[str, Any]:
    config = study_config(folder, **changes)
    found: dict[str, Any] = json.loads(json.dumps(registration_of(config, load_material(config), weights)))
    return found


def with_all_texts(registration: dict[str, Any], own: dict[str, str]) -> dict[str, Any]:
    """As a version registered it that knew one text less, and had all texts in the design."""
    design = {name: value for name, value in registration["design"].items() if name != "language"}
    texts = {language: {**LANGUAGES[language].model_dump(), **own} for language in design["languages"]}
    for one in texts.values():
        del one["lapsed_heading"]
    return {**registration, "design": {**design, "languages": texts}}


def test_a_study_goes_on_with_a_version_that_has_more_or_other_page_texts(tmp_path: Path, store: StudyStore) -> None:
    own = {"begin_button": "Go"}
    now = registered(tmp_path, languages={"en": own, "de": own})
    before = with_all_texts(now, own | {"thanks_note": "As an earlier version had it."})
    assert store.register("small", before)
    assert not store.register("small", now)
    store.enter(study_config(tmp_path), "en", {}, "one", lambda _: [])
    for languages in ({"en": {"begin_button": "Stop"}, "de": own}, {"en": own}, {"de": own, "en": own}):
        with pytest.raises(ConfigError, match="language"):
            store.register("small", registered(tmp_path, languages=languages))


@pytest.mark.parametrize("language", ["en", "fr"])
def test_a_text_or_a_language_that_differs_is_a_change(tmp_path: Path, language: str) -> None:
    before = study_config(tmp_path).design()
    texts = {**before["languages"]["en"], "begin_button": "Go"}
    after = {**before, "languages": {language: texts}}
    assert changed_settings(before, after) == ["languages"]
    assert changed_settings(after, before) == ["languages"]
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


def test_another_first_language_is_a_change(tmp_path: Path) -> None:
    one, other = (study_config(tmp_path, languages=dict(order)) for order in (BOTH.items(), reversed(BOTH.items())))
    assert changed_settings(one.design(), other.design()) == ["language"]
    assert one.fingerprint() != other.fingerprint()


def test_settings_and_texts_of_only_one_version_are_no_change(tmp_path: Path) -> None:
    design = study_config(tmp_path, about=[{"id": "age", "text": "Age?"}]).design()
    other = json.loads(json.dumps(design))
    other["languages"]["en"]["a_text_of_then"] = "Hello"
    for place in (other, other["labels"]["source"], other["arms"][ARMS[0]], other["about"][0]):
        place["a_setting_of_then"] = 1
    del other["place_hours"], other["comparisons"]["ties"]
    assert changed_settings(other, design) == []
    assert changed_settings({**design, "arms": {**design["arms"], "third": {}}}, design) == ["arms"]
    assert changed_settings({**other, "about": []}, design) == ["about"]
    other["labels"]["count"] += 1
    assert changed_settings(other, design) == ["labels"]


def test_weights_that_were_not_known_at_first_are_checked_once_they_are(tmp_path: Path, store: StudyStore) -> None:
    first, second = ARMS
    assert store.register("small", registered(tmp_path, {first: None, second: "b"}))
    assert not store.register("small", registered(tmp_path, {first: "a", second: "b"}))
    store.enter(study_config(tmp_path), "en", {}, "one", lambda _: [])
    assert not store.register("small", registered(tmp_path, {first: None, second: None}))
    for weights in ({first: "c", second: "b"}, {first: "a", second: "c"}):
        with pytest.raises(ConfigError, match="weights of the arm"):
            store.register("small", registered(tmp_path, weights))
