"""Policies that adapt to each person, with the verbs of every policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fspo.errors import ConfigError, DataError
from fspo.methods.adaptation import UserState
from fspo.methods.adapted_policy import AdaptedPolicy
from fspo.modeling.policy import Policy
from fspo.preferences.types import Person, Preference
from tests.methods.adaptation_worlds import adapting, liking_marks, margins

SHOTS, QUERY = liking_marks(4), liking_marks(1, start=20)[0]
STEPS: dict[str, Any] = {"steps": 3, "learning_rate": 0.02}
HOW: dict[str, Any] = {"max_new_tokens": 6, "temperature": 1.0, "seed": 2}


@pytest.fixture(scope="module")
def ttt(tiny_model_path: Path) -> AdaptedPolicy:
    return AdaptedPolicy.adapt(tiny_model_path, "ttt", STEPS)


def test_it_says_which_method_adapts_it(ttt: AdaptedPolicy, tiny_model_path: Path) -> None:
    assert repr(ttt) == f"AdaptedPolicy(model='{tiny_model_path}', method='ttt', layout='conversation')"


def test_a_reward_is_that_of_the_person_against_the_weights_alone(ttt: AdaptedPolicy, tiny_model_path: Path) -> None:
    (own,) = margins(adapting(tiny_model_path, "ttt", **STEPS), SHOTS, [QUERY])
    (bare,) = margins(adapting(tiny_model_path, "asls"), (), [QUERY])
    chosen, rejected = ttt.reward(SHOTS, QUERY.prompt, [QUERY.chosen, QUERY.rejected])
    assert chosen - rejected == pytest.approx(own - bare, abs=1e-4)


def test_the_antisymmetric_reward_changes_its_sign_with_the_labels(ttt: AdaptedPolicy) -> None:
    mirrored = [shot.swap() for shot in SHOTS]
    texts = [QUERY.chosen, QUERY.rejected]
    own = ttt.reward(SHOTS, QUERY.prompt, texts, against="mirror")
    assert own == pytest.approx([-value for value in ttt.reward(mirrored, QUERY.prompt, texts, against="mirror")])
    assert ttt.margins(SHOTS, [QUERY]) == pytest.approx([own[0] - own[1]])
    alone = [ttt.reward([shot], QUERY.prompt, texts, against="mirror") for shot in SHOTS]
    pooled = ttt.reward(SHOTS, QUERY.prompt, texts, against="pooled")
    assert pooled == pytest.approx([sum(column) for column in zip(*alone, strict=True)], abs=1e-4)
    for against in ("mirror", "pooled"):
        with pytest.raises(DataError, match="no labels to swap"):
            ttt.reward(None, QUERY.prompt, texts, against=against)


def test_people_are_answered_by_their_own_policies_together_as_alone(ttt: AdaptedPolicy) -> None:
    other = [shot.swap() for shot in SHOTS]
    people = [SHOTS, other, None, SHOTS]
    prompts = ["What now?", "What now?", "What now?", "And then?"]
    together = [reply.text for reply in ttt.generate_batch(list(zip(people, prompts, strict=True)), **HOW)]
    assert together == [ttt.generate(one, prompt, **HOW) for one, prompt in zip(people, prompts, strict=True)]
    assert together[0] != together[1]
    assert "".join(ttt.stream(SHOTS, "What now?", **HOW)) == together[0]


def test_no_steps_are_the_shots_in_the_context(tiny_model_path: Path) -> None:
    plain = Policy.load(tiny_model_path, context="shots")
    idle = AdaptedPolicy.adapt(tiny_model_path, "ttt", {"steps": 0})
    assert idle.generate(SHOTS, "What now?", **HOW) == plain.generate(SHOTS, "What now?", **HOW)
    assert idle.base.generate(None, "What now?", **HOW) == plain.base.generate(None, "What now?", **HOW)


def test_a_description_of_the_person_is_not_shown(tiny_model_path: Path) -> None:
    steering = AdaptedPolicy.adapt(tiny_model_path, "steering", shots=2)
    described = Person(tuple(SHOTS), "Likes exclamation marks.")
    assert steering.generate(described, "What now?", **HOW) == steering.generate(SHOTS[:], "What now?", **HOW)
    seen: list[int] = []
    adapt = steering.adaptation.adapt

    def counting(shots: list[Preference]) -> Any:
        seen.append(len(shots))
        return adapt(shots)

    steering.adaptation.adapt = counting  # type: ignore[method-assign, assignment]
    steering.generate(liking_marks(3, start=30), "What now?", **HOW)
    assert seen == [2]


def test_messages_have_the_text_that_a_method_writes(tiny_model_path: Path, ttt: AdaptedPolicy) -> None:
    summary = AdaptedPolicy.adapt(tiny_model_path, "summary")
    summary.adaptation.adapt = lambda shots: UserState(text="Likes marks.")  # type: ignore[method-assign]
    told, asked = summary.messages(SHOTS, "What now?")
    assert told == {"role": "system", "content": "Likes marks."} and asked["content"] == "What now?"
    assert len(summary.messages(None, "What now?")) == 1
    plain = Policy.load(tiny_model_path, context="shots")
    assert ttt.messages(SHOTS, "What now?") == plain.messages(SHOTS, "What now?")


def test_what_cannot_be_adapted_is_refused(ttt: AdaptedPolicy, tiny_model_path: Path) -> None:
    with pytest.raises(ConfigError, match="guidance would need those of two people"):
        ttt.generate(SHOTS, "What now?", guidance=1.0)
    about: dict[str, Any] = {"description": "Likes marks."}
    for described in (
        lambda: ttt.generate(SHOTS, "What now?", **about),
        lambda: ttt.stream(SHOTS, "What now?", **about),
        lambda: ttt.messages(SHOTS, "What now?", **about),
        lambda: ttt.reward(SHOTS, "What now?", ["Yes."], **about),
    ):
        with pytest.raises(ConfigError, match="'ttt' adapts to preferences alone"):
            described()
    with pytest.raises(ConfigError, match=r"'fspo' adapts to no user.*ttt"):
        AdaptedPolicy.adapt(tiny_model_path, "fspo")
    with pytest.raises(ConfigError, match="adapts to no user"):
        AdaptedPolicy.adapt(tiny_model_path)
    with pytest.raises(ConfigError, match="'p-rlhf' trains a policy of its own"):
        AdaptedPolicy.adapt(tiny_model_path, "p-rlhf")
    with pytest.raises(ConfigError, match=r"'ttt'.*step"):
        AdaptedPolicy.adapt(tiny_model_path, "ttt", {"step": 3})
