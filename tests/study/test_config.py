"""A study's file: what is accepted, what is refused in one sentence, and what may change after the start."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from fspo.errors import ConfigError
from fspo.runs.config import load_config
from fspo.study.config import StudyConfig, load_study, said
from fspo.study.material import load_material
from fspo.study.texts import LANGUAGES

ROOT = Path(__file__).parents[2]
SMALL: dict[str, Any] = {
    "name": "small",
    "arms": {"personal": {"policy": "smollm2-135m"}, "base": {"policy": "smollm2-135m", "personalised": False}},
    "labels": {"source": {"domain": "elix-written"}, "count": 2},
    "comparisons": {"count": 2},
    "consent": {"version": "1", "text": "Agree?", "contact": "ann@example.org"},
}


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({**SMALL, **changes}, allow_unicode=True, sort_keys=False))
    return path


def test_defaults_are_the_papers_design(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    values = {**SMALL, "labels": {"source": {"domain": "elix-written"}}, "comparisons": {}}
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    config = load_study(path)
    assert (config.participants, config.labels.count, config.comparisons.count) == (25, 9, 11)
    assert config.pairs == (("personal", "base"),)
    assert config.output == Path("studies/small")
    assert list(config.languages) == ["en"]


@pytest.mark.parametrize("name", ["paper", "second"])
def test_the_shipped_studies_load(name: str) -> None:
    config = load_study(ROOT / f"configs/study/{name}.yaml")
    assert config.name == name and config.participants == {"paper": 25, "second": 50}[name]
    assert (config.labels.count, config.comparisons.count) == (9, 11)
    assert {arm.layout for arm in config.arms.values()} == {None}  # a policy put in their place keeps its own


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"pair": []}, "pair"),
        ({"arms": {"one": {"policy": "x"}}}, "at least two arms"),
        ({"arms": {"one": {"policy": "x"}, "two": {}}}, "arms.two"),
        ({"pairs": [["personal", "bass"]]}, "bass"),
        ({"pairs": [["base", "base"]]}, "base"),
        ({"pairs": [["personal", "base"], ["base", "personal"]]}, "compared twice"),
        ({"pairs": [["personal", "base"], ["personal", "base"]]}, "compared twice"),
        ({"labels": {"source": {}}}, "labels.source"),
        ({"labels": {"source": {"domain": "elix-written"}, "attention": 1}}, "attention"),
        ({"comparisons": {"shots": [3]}}, "comparisons.shots"),
        ({"languages": {"en": {}, "de": {}}, "title": {"en": "Hello"}}, "de"),
        ({"languages": {"fr": {}}}, "the built-in languages are de, en, and"),
        ({"languages": {"en": {"beginn_button": "Go"}}}, "beginn_button"),
        ({"languages": {"<b>": {}}}, "<b>"),
        ({"languages": {"en": {"progress": "{number} of {total}"}}}, "{total}"),
        ({"languages": {"en": {"contact": "{contact.__class__}"}}}, "contact.__class__"),
        ({"languages": {"en": {"progress": "a { b"}}}, "brace"),
        ({"recruiting": {"completion_url": "https://example.org/{code}"}}, "finished"),
        ({"recruiting": {"completion_url": "javascript:alert(1)//{code}"}}, "completion_url"),
        ({"recruiting": {"session": "STUDY_ID"}}, "different names"),
        ({"about": [{"id": "age", "text": "Age?", "options": ["old"], "quotas": {"young": 1}}]}, "young"),
        ({"about": [{"id": "a", "text": "?"}, {"id": "a", "text": "?"}]}, "same id"),
        ({"consent": {"version": "1", "text": "  ", "contact": "x"}}, "consent.text"),
        ({"consent": {"version": 1, "text": "Agree?", "contact": "x"}}, "not 1; write it in quotes"),
        ({"name": "../x"}, "name"),
    ],
)
def test_a_mistake_is_one_sentence_that_names_it(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_study(written(tmp_path, **changes))
    sentence = str(caught.value)
    assert named in sentence and "study.yaml" in sentence and "\n" not in sentence


def test_the_verbs_of_runs_refuse_a_study() -> None:
    with pytest.raises(ConfigError, match=r"describes a study, .* `fspo study serve"):
        load_config(ROOT / "configs/study/paper.yaml")


def test_texts_are_changed_one_by_one_in_any_language(tmp_path: Path) -> None:
    arabic = {**LANGUAGES["en"].model_dump(), "direction": "rtl", "begin_button": "ابدأ"}
    title = {"de": "Was gefällt Ihnen?", "ar": "ماذا تفضل؟"}
    config = load_study(written(tmp_path, languages={"de": {"begin_button": "Los"}, "ar": arabic}, title=title))
    assert config.language == "de"
    assert config.languages["de"].begin_button == "Los"
    assert config.languages["de"].undo_button == LANGUAGES["de"].undo_button
    assert config.languages["ar"].direction == "rtl"
    assert said(config.title, "ar") == title["ar"]
    assert said("One for all", "ar") == "One for all"


def test_the_fingerprint_changes_with_the_design_and_not_with_the_place(tmp_path: Path) -> None:
    def fingerprint(**changes: Any) -> str:
        return load_study(written(tmp_path, **changes)).fingerprint()

    same = fingerprint()
    assert fingerprint(output="elsewhere", answers={"together": 9}) == same
    servers = [
        {"one": {"endpoint": {"base_url": f"http://{host}/v1", "model": "m"}}, "two": {"policy": "x"}}
        for host in ("here", "there")
    ]
    assert fingerprint(arms=servers[0]) == fingerprint(arms=servers[1]) != same
    for changes in (
        {"participants": 26},
        {"comparisons": {"count": 3}},
        {"consent": {**SMALL["consent"], "text": "Agree!"}},
        {"answers": {"temperature": 0.5}},
        {"languages": {"en": {"begin_button": "Go"}}},
    ):
        assert fingerprint(**changes) != same, changes


def test_every_language_has_every_text_with_the_same_gaps() -> None:
    import string

    def gaps(text: str) -> set[str]:
        return {name for _, name, _, _ in string.Formatter().parse(text) if name}

    english = LANGUAGES["en"].model_dump()
    assert set(LANGUAGES) >= {"en", "de"}
    for language, texts in LANGUAGES.items():
        for name, text in texts.model_dump().items():
            assert text.strip() and gaps(text) == gaps(english[name]), (language, name)


def test_a_configuration_can_be_made_in_python() -> None:
    assert StudyConfig.model_validate(SMALL).fingerprint() == StudyConfig.model_validate(SMALL).fingerprint()


def test_the_study_of_the_documentation_loads(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/study.md").read_text(), re.DOTALL)
    (tmp_path / "study.yaml").write_text(block)
    config = load_study(tmp_path / "study.yaml")
    assert config.pairs == (("fspo", "base"), ("fspo", "server"))
    load_material(config)
