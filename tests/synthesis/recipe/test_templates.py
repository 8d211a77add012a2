"""Templates, and the folders of domains that hold them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fspo.errors import DataError
from fspo.synthesis.recipe.domain import PROMPTS, domain_names, load_recipe_domain
from fspo.synthesis.recipe.templates import Template
from tests.synthesis.recipe.helpers import write_domain

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
    domain = load_recipe_domain(name)
    texts = [seed.text for seed in domain.seeds]
    assert len(set(texts)) == len(texts) >= 90
    assert len({name for name, _ in domain.personas}) == len(domain.personas) >= 8
    assert set(domain.prompts) == set(PROMPTS)
    for variables in (("first", "second", "description", "question"),):
        assert set(variables) == set(domain.prompts["judge"].variables())


def test_there_are_the_domains_of_the_paper() -> None:
    assert {"reviews", "elix-easy", "elix-hard", "roleplay"} <= set(domain_names())
    hard = load_recipe_domain("elix-hard")
    assert len({seed.topic for seed in hard.seeds}) == 110


def test_a_domain_of_ones_own_is_read(tmp_path: Path) -> None:
    folder = write_domain(tmp_path / "mine", prompts='views: "List {number} views on {question}"\n')
    domain = load_recipe_domain(str(folder))
    assert domain.name == "mine"
    assert (domain.seeds[0].text, domain.seeds[0].topic) == ("Will it rain today?", "weather")
    assert domain.prompts["views"].fill(number=3, question="x") == "List 3 views on x"
    assert domain.attributes() == ("length",)
    before = domain.fingerprint
    write_domain(folder, domain="about: Other talk.\nlicence: ours\n")
    assert load_recipe_domain(str(folder)).fingerprint != before


def test_titles_fill_patterns_and_take_turns(tmp_path: Path) -> None:
    files = {
        "titles": "film: [Jaws, Up]\nbook: [Emma]\n",
        "questions": "['Is {title} good?', 'Rate the {kind} {title}.']",
    }
    domain = load_recipe_domain(str(write_domain(tmp_path / "mine", **files)))
    assert [seed.text for seed in domain.seeds] == [
        "Is Jaws good?", "Rate the book Emma.", "Is Up good?",
        "Rate the film Jaws.", "Is Emma good?", "Rate the film Up.",
    ]  # fmt: skip
    assert domain.seeds[0].unit == domain.seeds[3].unit == "film/Jaws"


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"domain": "about: x\nabot: x\nlicence: y\n"}, r"domain.yaml, abot: there is no such key; .* 'about'"),
        ({"domain": "about: [1\n"}, r"domain.yaml is not readable as YAML"),
        ({"questions": "3"}, r"questions.yaml"),
        ({"questions": "[]"}, r"holds no question"),
        ({"questions": "weather: {rain: true}"}, r"questions.yaml, weather: there is no list of questions"),
        ({"questions": "['', a, b]"}, r"questions.yaml, question 1: it is empty"),
        ({"questions": "yes: [a, b, c]"}, r"the topic True is not text"),
        ({"questions": "Will it rain today?"}, r"write questions, each after a dash"),
        ({"steering": "personas:\n- name: a\n  system: Answer so: short\n"}, r"line 3.* needs quotation marks"),
        ({"questions": "['What of {title}?']"}, r"unknown variable '\{title\}'"),
        ({"steering": "personas: []"}, r"steering.yaml, personas"),
        ({"steering": "personas: [{name: a, system: 'See {kind}'}]"}, r"unknown variable '\{kind\}'"),
        ({"prompts": "juge: x"}, r"no prompt 'juge'; did you mean 'judge'"),
        ({"prompts": "judge: '{descripton}'"}, r"prompts.yaml, judge: .* did you mean '\{description\}'"),
        ({"prompts": "judge: '{first} or {second}?'"}, r"judge: the template lacks \{description\}, \{question\};"),
        ({"prompts": "view: Be odd."}, r"view: the template lacks \{view\};"),
        ({"users": "users: []"}, r"either users, or traits"),
        ({"users": "users: [{id: a, text: b}, {id: a, text: c}]"}, r"'a' is listed twice"),
        ({"users": "users: [{id: a, text: b, txt: c}]"}, r"users.0.txt: .* did you mean 'text'"),
        ({"users": AGES + "combine: [aeg]\ndescription: x"}, r"no 'aeg'; did you mean 'age'"),
        ({"users": AGES + "combine: [age]\ndescription: '{agee}'"}, r"unknown variable '\{agee\}'"),
        ({"users": AGES + "combine: [age]\ntopic: age\ndescription: '{age}'"}, r"no questions on it"),
        ({"users": "users: [{id: a, text: b, weights: {lenght: 1}}]"}, r"users.yaml: .* did you mean 'length'"),
        ({"users": "users: [{id: a, text: b, weights: {topic.sea: 1}}]"}, r"no topic 'sea'"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_folder_is_told_by_file_and_key(files: dict[str, str], told: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=told):
        load_recipe_domain(str(write_domain(tmp_path / "mine", **files)))


@pytest.mark.parametrize("name", ["domain", "questions", "steering", "users"])
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    folder = write_domain(tmp_path / "mine")
    (folder / f"{name}.yaml").unlink()
    with pytest.raises(DataError, match=rf"has no {name}\.yaml"):
        load_recipe_domain(str(folder))


def test_an_unknown_domain_is_told_with_the_nearest_one() -> None:
    with pytest.raises(
        DataError, match=rf"no domain 'elix-eazy', .* name in {re.escape(str(Path.cwd()))}; did you mean 'elix-easy'"
    ):
        load_recipe_domain("elix-eazy")
