"""Users from tables of traits, and who is held out."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from fspo.errors import ConfigError, DataError
from fspo.judging.by_topic import weights_on
from fspo.progress import Silent
from fspo.synthesis.domain import load_domain
from fspo.synthesis.domain_files import domain_names
from fspo.synthesis.synthesize import Writers, synthesize
from fspo.synthesis.user_slots import LISTED, make_user, slots_of, split_users
from tests.synthesis.helpers import ScriptedModel, config_of, write_domain

COUNTS = {"reviews": 8, "elix-easy": 5, "elix-hard": 550, "roleplay": 1500, "reviews-restyled": 72}
COUNTS |= {"advice": 120, "elix-written": 60, "reviews-written": 120}


@pytest.mark.parametrize("name", domain_names())
def test_there_are_as_many_users_as_in_the_paper(name: str) -> None:
    config, domain = config_of(domain=name), load_domain(name)
    places = slots_of(config, domain)
    assert len(places) == len({place.id for place in places}) == COUNTS[name]
    users = [make_user(config, domain, place) for place in places]
    assert all(user.description and "{" not in user.description for user in users)
    for user in users:
        for topic in {name.partition("@")[2] for name in user.traits}:
            weights = weights_on(user, topic).traits.values()
            assert math.isclose(sum(weight**2 for weight in weights), 1, abs_tol=1e-4)
    parts = split_users(config, places)
    assert sum(map(len, parts.values())) == len(frozenset().union(*parts.values())) == len(places)
    assert all(parts[split] for split in ("train", "test"))


def test_who_is_named_to_be_held_out_is() -> None:
    config, domain = config_of(domain="reviews"), load_domain("reviews")
    parts = split_users(config, slots_of(config, domain))
    assert parts["train"] == {"positive", "negative", "concise", "verbose"}
    assert len(parts["test"]) == 4
    assert not parts["validation"]


def test_an_expert_wants_something_else_on_their_own_field() -> None:
    config, domain = config_of(domain="elix-hard"), load_domain("elix-hard")
    place = next(place for place in slots_of(config, domain) if place.id == "professor-art_history")
    user = make_user(config, domain, place)
    assert place.topic == "art history"
    assert weights_on(user, "art history").traits["rarity"] > 0 > weights_on(user, "optics").traits["rarity"]


def test_another_attempt_draws_other_traits_and_the_same_one_the_same() -> None:
    config, domain = config_of(domain="roleplay"), load_domain("roleplay")
    place = slots_of(config, domain)[0]
    made = [make_user(config, domain, place, attempt).description for attempt in (0, 0, 1, 2)]
    assert made[0] == made[1]
    assert len(set(made)) > 1
    assert make_user(config_of(domain="roleplay", seed=1), domain, place).id == place.id


def test_fewer_users_are_spread_over_all_combinations() -> None:
    domain = load_domain("roleplay")
    for users, groups in ((25, 25), (50, 50), (70, 50)):
        places = slots_of(config_of(domain="roleplay", users=users), domain)
        assert (len(places), len({place.group for place in places})) == (users, groups)
    with pytest.raises(ConfigError, match=r"synthesis.users is 2000, .* has 1500"):
        slots_of(config_of(domain="roleplay", users=2000), domain)


def test_of_a_few_users_two_are_left_to_train_on(tmp_path: Path) -> None:
    domain = load_domain(str(write_domain(tmp_path / "mine")))
    config = config_of(domain="mine", users=3, validation=0.5, held_out=0.3)
    parts = split_users(config, slots_of(config, domain))
    assert {split: len(ids) for split, ids in parts.items()} == {"train": 2, "validation": 0, "test": 1}


def test_listed_users_are_of_one_group() -> None:
    domain = load_domain("elix-easy")
    assert {place.group for place in slots_of(config_of(), domain)} == {LISTED}


def test_users_with_the_same_id_are_refused_before_anything_is_asked(tmp_path: Path) -> None:
    users = (
        "combine: [language]\neach: 1\ndescription: 'Writes {language}.'\ntraits:\n"
        "  language: [{name: C, text: C}, {name: C++, text: C++}]\n"
    )
    domain = load_domain(str(write_domain(tmp_path / "mine", users=users)))
    with pytest.raises(DataError, match=r"users.yaml gives the id 'c' to more than one user"):
        slots_of(config_of(domain="mine"), domain)


LISTED_USERS = "users: [{id: short, text: Short., weights: {length: -1}}, {id: any, text: Anything.}]"


def test_the_measured_judge_needs_weights_and_a_model_does_not(tmp_path: Path) -> None:
    domain = load_domain(str(write_domain(tmp_path / "mine", users=LISTED_USERS)))
    with pytest.raises(DataError, match=r"the user 'any' has no weights"):
        slots_of(config_of(domain="mine", judge="measured"), domain)
    assert len(slots_of(config_of(domain="mine", judge="llm"), domain)) == 2


def test_what_is_wrong_with_users_is_told_before_anybody_is_asked(tmp_path: Path) -> None:
    model, folder = ScriptedModel(), write_domain(tmp_path / "mine", users=LISTED_USERS)
    config = config_of(domain=str(folder), judge="measured", augment=False)
    with pytest.raises(DataError, match=r"has no weights"):
        synthesize(config, Writers(model, model), tmp_path / "out", Silent())
    assert not model.asked and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (
            "combine: [a]\ndraw: [b]\ndescription: x\ntraits: {a: [{name: x, text: x}], b: []}",
            r"traits\.b has no value",
        ),
        ("combine: [a]\ndescription: '{a}'\ntraits: {a: []}", r"traits\.a has no value"),
        ("users: [{id: a, text: b, weights: {length: .inf}}, {id: c, text: d}]", "length': input should be a finite"),
    ],
)
def test_factors_without_values_and_infinite_weights_are_told_with_their_place(
    file: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=rf"users\.yaml: .*{message}"):
        load_domain(str(write_domain(tmp_path / "mine", users=file)))


@pytest.mark.parametrize(("users", "held_out"), [(2, 0.8), (3, 0.85), (4, 0.9)])
def test_nobody_left_to_train_on_is_told_before_anybody_is_asked(users: int, held_out: float, tmp_path: Path) -> None:
    domain = str(write_domain(tmp_path / "mine"))
    config, model = config_of(domain=domain, users=users, held_out=held_out, validation=0.0), ScriptedModel()
    with pytest.raises(ConfigError, match=f"held_out is {held_out}, which holds out all {users} users.*lower it"):
        synthesize(config, Writers(model, model), tmp_path / "out", Silent())
    assert not model.asked and not (tmp_path / "out").exists()
