"""Templates, and the folders of domains that hold them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fspo.errors import DataError
from fspo.synthesis.config import SynthesisConfig, usual_settings
from fspo.synthesis.domain import PROMPTS, load_domain
from fspo.synthesis.domain_files import domain_names
from fspo.synthesis.templates import Template
from tests.synthesis.helpers import write_domain

AGES = "traits: {age: [{name: a, text: b}]}\n"


def test_variables_are_filled_in_and_braces_can_be_meant() -> None:
    template = Template('{a} and {b}, {{"x": "{a}"}}', frozenset("ab"), "here")
    assert template.variables() == ["a", "b"]
    assert template.fill(a=1, b="two") == '1 and two, {"x": "1"}'


@given(st.text(), st.text())
def test_what_is_filled_in_is_no_template(first: str, second: str) -> None:
    template = Template("<{a}|{b}>", frozenset("ab"), "here")
    assert template.fill(a=first, b=second) == f"<{first}|{second}>".strip()


def test_an_unknown_variable_is_told_with_the_nearest_known_one() -> None:
    with pytest.raises(DataError, match=r"prompts.yaml, judge: .* '\{qestion\}'; did you mean '\{question\}'"):
        Template("{qestion}", PROMPTS["judge"], "prompts.yaml, judge")


@pytest.mark.parametrize("name", domain_names())
def test_the_domains_of_the_package_hold_together(name: str) -> None:
    domain = load_domain(name)
    texts = [seed.text for seed in domain.seeds]
    assert len(set(texts)) == len(texts) >= (60 if domain.written else 90)
    assert len({persona.name for persona in domain.personas}) == len(domain.personas)
    assert domain.written or len(domain.personas) >= 8
    assert set(domain.prompts) == set(PROMPTS)
    for variables in (("first", "second", "description", "question"),):
        assert set(variables) == set(domain.prompts["judge"].variables())


def test_there_are_the_domains_of_the_paper() -> None:
    assert {"reviews", "elix-easy", "elix-hard", "roleplay"} <= set(domain_names())
    hard = load_domain("elix-hard")
    assert len({seed.topic for seed in hard.seeds}) == 110


def test_a_domain_of_ones_own_is_read(tmp_path: Path) -> None:
    folder = write_domain(tmp_path / "mine", prompts='views: "List {number} views on {question}"\n')
    domain = load_domain(str(folder))
    assert domain.name == "mine"
    assert (domain.seeds[0].text, domain.seeds[0].topic) == ("Will it rain today?", "weather")
    assert domain.prompts["views"].fill(number=3, question="x") == "List 3 views on x"
    assert domain.attributes() == ("length",)
    before = domain.fingerprint
    write_domain(folder, domain="about: Other talk.\nlicence: ours\n")
    assert load_domain(str(folder)).fingerprint != before


def test_a_domain_may_extend_another_one_and_have_settings_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "domain.yaml").write_text(
        "about: x\nlicence: y\nextends: reviews\nsettings: {pairs: 17, judge: measured}\n"
    )
    (folder / "users.yaml").write_text("directions: {attributes: [sentiment, length, emoji]}\n")
    domain, base = load_domain(str(folder)), load_domain("reviews")
    assert (domain.seeds, domain.personas) == (base.seeds, base.personas)
    assert domain.weighed() == ("sentiment", "length", "emoji")
    config = SynthesisConfig(domain=str(folder))
    assert (config.pairs, config.judge, config.questions) == (17, "measured", 100)
    assert SynthesisConfig(domain=str(folder), pairs=18).pairs == 18
    assert usual_settings(config.model_copy(update={"pairs": 19}))["pairs"] == 17


def test_titles_fill_patterns_and_take_turns(tmp_path: Path) -> None:
    files = {
        "titles": "film: [Jaws, Up]\nbook: [Emma]\n",
        "questions": "['Is {title} good?', 'Rate the {kind} {title}.']",
    }
    domain = load_domain(str(write_domain(tmp_path / "mine", **files)))
    assert [seed.text for seed in domain.seeds] == [
        "Is Jaws good?", "Rate the book Emma.", "Is Up good?",
        "Rate the film Jaws.", "Is Emma good?", "Rate the film Up.",
    ]  # fmt: skip
    assert domain.seeds[0].unit == domain.seeds[3].unit == "film/Jaws"


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"domain": "about: x\nabot: x\nlicence: y\n"}, r"domain.yaml: there is no key 'abot'; did you mean 'about'"),
        ({"domain": "about: [1\n"}, r"domain.yaml is not readable as YAML"),
        ({"questions": "3"}, r"questions.yaml"),
        ({"questions": "[]"}, r"holds no question"),
        ({"questions": "weather: {rain: true}"}, r"questions.yaml, weather: there is no list of questions"),
        ({"questions": "['', a, b]"}, r"questions.yaml, question 1: it is empty"),
        ({"questions": "yes: [a, b, c]"}, r"the topic True is not text"),
        ({"questions": "Will it rain today?"}, r"write questions, each after a dash"),
        ({"steering": "personas:\n- name: a\n  system: Answer so: short\n"}, r"line 3.* needs quotation marks"),
        ({"questions": "['What of {title}?']"}, r"unknown variable '\{title\}'"),
        ({"steering": "personas: []"}, r"steering.yaml: 'personas'"),
        ({"steering": "personas: [{name: a, system: 'See {kind}'}]"}, r"unknown variable '\{kind\}'"),
        ({"prompts": "juge: x"}, r"no prompt 'juge'; did you mean 'judge'"),
        ({"prompts": "judge: '{descripton}'"}, r"prompts.yaml, judge: .* did you mean '\{description\}'"),
        ({"prompts": "judge: '{first} or {second}?'"}, r"judge: the template lacks \{description\}, \{question\};"),
        ({"prompts": "view: Be odd."}, r"view: the template lacks \{view\};"),
        ({"users": "users: []"}, r"either users, or directions, or traits"),
        ({"users": "users: [{id: a, text: b}, {id: a, text: c}]"}, r"'a' is listed twice"),
        ({"users": "users: [{id: a, text: b, txt: c}]"}, r"no key 'users.0.txt'; did you mean 'users.0.text'"),
        ({"users": AGES + "combine: [aeg]\ndescription: x"}, r"no 'aeg'; did you mean 'age'"),
        ({"users": AGES + "combine: [age]\ndescription: '{agee}'"}, r"unknown variable '\{agee\}'"),
        ({"users": AGES + "combine: [age]\ntopic: age\ndescription: '{age}'"}, r"no questions on it"),
        ({"users": "users: [{id: a, text: b, weights: {lenght: 1}}]"}, r"users.yaml: .* did you mean 'length'"),
        ({"users": "users: [{id: a, text: b, weights: {topic.sea: 1}}]"}, r"no topic 'sea'"),
        ({"users": "directions: {kind: axis}"}, r"users.yaml: 'directions.kind'"),
        ({"users": "directions: {knd: axes}"}, r"no key 'directions.knd'; did you mean 'directions.kind'"),
        ({"users": "directions: {}"}, r"directions: list the attributes that users weigh"),
        ({"users": "directions: {attributes: [lenght, emoji]}"}, r"users.yaml: .* did you mean 'length'"),
        ({"domain": "about: x\nlicence: y\nresponses: wrote\n"}, r"domain.yaml: 'responses'"),
        ({"domain": "about: x\nlicence: y\nresponses: written\n"}, r"has no traits.yaml"),
        ({"domain": "about: x\nlicence: y\nresponses: restyled\n"}, r"'friend' needs a sentiment and openings"),
        ({"domain": "about: x\nlicence: y\nextends: review\n"}, r"no domain 'review' in fspo; did you mean 'reviews'"),
        ({"domain": "about: x\nlicence: y\nsettings: {pair: 3}\n"}, r"no setting 'pair' .*; did you mean 'pairs'"),
        ({"domain": "about: x\nlicence: y\nsettings: {seed: 3}\n"}, r"no setting 'seed' for a domain to choose"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_folder_is_told_by_file_and_key(files: dict[str, str], told: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=told):
        load_domain(str(write_domain(tmp_path / "mine", **files)))


@pytest.mark.parametrize("name", ["domain", "questions", "steering", "users"])
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    folder = write_domain(tmp_path / "mine")
    (folder / f"{name}.yaml").unlink()
    with pytest.raises(DataError, match=rf"has no {name}\.yaml"):
        load_domain(str(folder))


def test_an_unknown_domain_is_told_with_the_nearest_one() -> None:
    with pytest.raises(
        DataError, match=rf"no domain 'elix-eazy', .* name in {re.escape(str(Path.cwd()))}; did you mean 'elix-easy'"
    ):
        load_domain("elix-eazy")
