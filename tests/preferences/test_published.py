"""Published datasets, in rows of exactly the columns they were published with."""

from __future__ import annotations

import math
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fspo.errors import ConfigError, DataError
from fspo.preferences.published import PUBLISHED, Drawn, Imported, from_published

ROLEPLAY = {
    "x": "How do I rest?",
    "yw": "Sleep.",
    "yl": "Run.",
    "level": 17,
    "score_persona": {"persona_uuid": "a-b", "persona_description": "A nurse who works at night."},
}
ELIX = {
    "prompt": "Explain tides.",
    "response_x": "The Moon pulls the sea.",
    "response_y": "Differential gravitation raises two bulges.",
    "level_x": "elementary",
    "level_y": "PhD",
    "level_id_x": 1,
    "level_id_y": 5,
    "model_name_x": "one",
    "model_name_y": "two",
    "scorer_level": "PhD",
    "scorer_level_id": 5,
    "label": 1,
    "det_choice": 1,
}
REVIEWS = {
    "prompt": "Review Alien.",
    "response_x": "Great!",
    "response_y": "It is, on the whole, rather too long.",
    "level_x": "positive",
    "level_y": "verbose",
    "label": 0,
    "scorer_level": "positive+concise",
}
BENCH = {
    "user_id": "user7",
    "split": "train",
    "context": [{"role": "user", "content": "Is it late?"}],
    "chosen": {"role": "assistant", "content": "Yes."},
    "rejected": {"role": "assistant", "content": "Time is a construct."},
}


def prism(interaction: str, response: str, chosen: Any, **changes: Any) -> dict[str, Any]:
    row = {
        "utterance_id": f"{interaction}-{response}",
        "interaction_id": interaction,
        "conversation_id": "c1",
        "user_id": "user0",
        "turn": 0,
        "within_turn_id": 0,
        "conversation_type": "unguided",
        "user_prompt": "Hello?",
        "model_response": response,
        "model_name": "m",
        "score": 50,
        "if_chosen": chosen,
    }
    return {**row, **changes}


def imported(kind: str, *rows: dict[str, Any], **more: Any) -> Imported:
    return from_published(enumerate(rows, start=1), kind, file="theirs.jsonl", **more)


def test_roleplay() -> None:
    found = imported("roleplay", ROLEPLAY, ROLEPLAY | {"level": 18, "yw": "Run.", "yl": "Sleep."})
    assert [user.id for user in found.dataset.users.values()] == ["17", "18"]
    assert found.dataset.users["17"].description == "A nurse who works at night."
    row = found.dataset.preferences[0]
    assert (row.prompt, row.chosen, row.rejected) == ("How do I rest?", "Sleep.", "Run.")
    assert row.source == {"persona": "a-b"}
    assert found.left_out == {}


def test_elix_and_reviews_go_by_the_label() -> None:
    (row,) = imported("elix", ELIX).dataset.preferences
    assert (row.user, row.chosen) == ("PhD", ELIX["response_y"])
    assert row.source["model_name_y"] == "two"
    found = imported("reviews", REVIEWS, REVIEWS | {"scorer_level": "negative", "label": 1})
    assert [row.chosen for row in found.dataset] == [REVIEWS["response_x"], REVIEWS["response_y"]]
    assert [user.group for user in found.dataset.users.values()] == ["interpolated", "axis"]
    assert found.dataset.users["positive+concise"].description == "Likes reviews that are positive and concise."


def test_reward_bench_keeps_single_questions() -> None:
    earlier = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hi."}, *BENCH["context"]]
    found = imported("reward-bench", BENCH, BENCH | {"context": earlier}, BENCH | {"context": earlier[:2]})
    (row,) = found.dataset.preferences
    assert (row.user, row.prompt, row.chosen, row.rejected) == ("user7", "Is it late?", "Yes.", "Time is a construct.")
    assert found.left_out == {
        "rows with turns before the question": 1,
        "rows whose context does not end with the user": 1,
    }


def test_prism_prefers_the_chosen_response_to_each_other_one() -> None:
    rows = [
        *(prism("i1", text, text == "b") for text in "abcd"),
        *(prism("i2", text, text == "b", turn=1) for text in "ab"),
        *(prism("i3", text, False, user_id="user1") for text in "ab"),
    ]
    found = imported("prism", *rows)
    assert [(row.chosen, row.rejected) for row in found.dataset] == [("b", "a"), ("b", "c"), ("b", "d")]
    assert list(found.dataset.users) == ["user0"]
    assert found.left_out == {
        "rows with turns before the question": 2,
        "rows of an interaction without one chosen response": 2,
    }


def test_prism_never_mixes_people() -> None:
    # No interaction, or the same one under two names: nothing says that these answer one question of one person.
    rows = [
        prism(None, "Yes.", True, user_id="ann", user_prompt="Is it warm?"),  # type: ignore[arg-type]
        prism(None, "Nobody.", False, user_id="ben", user_prompt="Who won?"),  # type: ignore[arg-type]
        prism("", "No.", False, user_id="ann"),
        prism("i1", "a", True, user_id="ann"),
        prism("i1", "b", False, user_id="ben"),
        prism("i1", "c", False, user_id=None),
        prism("i2", "d", True, user_id="eve"),
        prism("i2", "e", False, user_id="eve"),
    ]
    found = imported("prism", *rows)
    assert [(row.user, row.chosen, row.rejected) for row in found.dataset] == [("eve", "d", "e")]
    assert found.left_out == {
        "rows without a user or an interaction": 4,
        "rows of an interaction with one response": 1,
        "rows of an interaction without one chosen response": 1,
    }
    assert found.first["rows without a user or an interaction"] == "theirs.jsonl, row 1"
    assert sum(found.left_out.values()) + 2 == len(rows)  # the last two are one pair


def test_prism_leaves_out_interactions_that_contradict_themselves() -> None:
    kept = [prism("kept", "a", True), prism("kept", "b", False, user_prompt="Hello? ")]  # another spelling alone
    several = [prism("i1", "c", True), prism("i1", "d", False, user_prompt="Bye?")]
    no_turn = [prism("i2", "e", True, turn=None), prism("i2", "f", False, turn=None)]
    found = imported("prism", *several, *kept, *no_turn)
    assert [(row.chosen, row.rejected) for row in found.dataset] == [("a", "b")]
    assert found.left_out == {
        "rows of an interaction with several prompts": 2,
        "rows of an interaction that does not say which turn it is": 2,
    }


@pytest.mark.parametrize(
    ("yes", "no"), [(True, False), ("True", "False"), ("true", "false"), (1, 0), (1.0, 0.0), ("1", "0")]
)
def test_prism_s_booleans_are_read_as_what_they_say(yes: Any, no: Any) -> None:
    rows = [prism("i", "a", no), prism("i", "b", yes), prism("i", "c", no), prism("i", "d", None, turn="0")]
    found = imported("prism", *rows)
    assert [(row.chosen, row.rejected) for row in found.dataset] == [("b", "a"), ("b", "c")]
    assert found.left_out == {"rows without a value of if_chosen": 1}


def test_prism_s_words_for_an_empty_text_are_no_response() -> None:
    rows = [
        *(prism("i1", text, text == "a") for text in ("a", "EMPTY STRING", "b", "\u200b")),
        *(prism("i2", text, text == "EMPTY STRING") for text in ("EMPTY STRING", "c", "d")),
    ]
    found = imported("prism", *rows)
    assert [(row.chosen, row.rejected) for row in found.dataset] == [("a", "b")]
    assert found.left_out == {
        "rows with an empty user, prompt or response": 2,
        "rows of an interaction whose prompt or chosen response is empty": 3,
    }
    made_from_prism = BENCH | {"chosen": {"role": "assistant", "content": "EMPTY STRING"}}
    found = imported("reward-bench", BENCH, made_from_prism)
    assert found.left_out == {"rows with an empty user, prompt or response": 1}


def test_half_of_a_surrogate_pair_anywhere_costs_its_row_alone() -> None:
    broken = {"persona_uuid": "c", "persona_description": "A nurse \ud83d"}
    bad = ROLEPLAY | {"level": 3, "score_persona": broken}
    found = imported("roleplay", ROLEPLAY, bad, bad | {"x": "Why?"}, ROLEPLAY | {"x": "How \ud83d?"})
    assert list(found.dataset.users) == ["17"]
    assert found.left_out == {"rows with half of a surrogate pair": 3}
    assert found.first == {"rows with half of a surrogate pair": "theirs.jsonl, row 2"}


def test_what_is_null_is_no_text() -> None:
    nobody = {"persona_uuid": None, "persona_description": None}
    (row,) = imported("roleplay", ROLEPLAY | {"score_persona": nobody}).dataset.preferences
    assert row.source == {}
    (user,) = imported("roleplay", ROLEPLAY | {"score_persona": nobody}).dataset.users.values()
    assert user.description == ""
    for missing in (None, math.nan):
        found = imported("elix", ELIX, ELIX | {"scorer_level": missing}, ELIX | {"label": missing, "prompt": "Why?"})
        assert list(found.dataset.users) == ["PhD"]
        assert found.left_out == {"rows with an empty user, prompt or response": 1, "rows without a label": 1}
    (row,) = imported("elix", ELIX | {"scorer_level_id": math.nan, "level_x": None}).dataset.preferences
    assert row.source == {"level_y": "PhD", "model_name_x": "one", "model_name_y": "two"}
    found = imported(
        "reward-bench",
        BENCH,
        BENCH | {"user_id": None},
        BENCH | {"chosen": None},
        BENCH | {"rejected": {"role": "assistant", "content": None}},
        BENCH | {"context": None},
    )
    assert found.left_out == {
        "rows with an empty user, prompt or response": 3,
        "rows whose context does not end with the user": 1,
    }


def test_ids_that_a_table_made_floats_are_the_same_ids() -> None:
    found = imported(
        "roleplay", ROLEPLAY, ROLEPLAY | {"level": 17.0, "x": "Why?"}, ROLEPLAY | {"level": "17", "x": "How?"}
    )
    assert list(found.dataset.users) == ["17"]
    assert [
        row.chosen for row in imported("elix", ELIX | {"label": "1"}, ELIX | {"label": 0.0, "prompt": "?"}).dataset
    ] == [
        ELIX["response_y"],
        ELIX["response_x"],
    ]


def test_two_personas_are_not_one_user() -> None:
    other = {"persona_uuid": "x-y", "persona_description": "A pilot."}
    found = imported("roleplay", ROLEPLAY, ROLEPLAY | {"x": "Why?", "score_persona": other})
    assert len(found.dataset) == 1
    assert found.left_out == {"rows of a user who was another persona in an earlier row": 1}


def test_a_question_in_two_spellings_is_one_question_here_too() -> None:
    rows = [ELIX, ELIX | {"prompt": "explain  tides. "}, ELIX | {"prompt": "EXPLAIN TIDES.", "label": 0}]
    rows.append(ELIX | {"prompt": "Explain fog."})
    found = imported("elix", *rows)
    assert [row.prompt for row in found.dataset] == ["Explain fog."]
    assert found.left_out == {"rows repeating an earlier one": 1, "rows of a pair that its user labels both ways": 2}


def personal(prompt: str, *scores: tuple[float, float]) -> dict[str, Any]:
    row: dict[str, Any] = {"prompt": prompt, "subset": "s"}
    for number, (one, other) in enumerate(scores, start=1):
        row[f"response_{number}"] = f"Answer {number} to {prompt}"
        row[f"response_{number}_model"] = "m"
        row[f"response_{number}_rm_one"], row[f"response_{number}_rm_two"] = one, other
    return row


def test_personal_llm_draws_users_who_go_by_their_weights() -> None:
    rows = [personal(f"p{n}", *((float(i * n % 7), 100.0 * (i * (n + 3) % 5)) for i in range(1, 9))) for n in range(6)]
    drawn = Drawn(users=30, concentration=0.5, pairs=3, seed=4)
    found = imported("personal-llm", *rows, drawn=drawn)
    assert found == imported("personal-llm", *rows, drawn=drawn)
    assert found.dataset != imported("personal-llm", *rows, drawn=Drawn(30, 0.5, 3, seed=5)).dataset
    scores = {
        row[f"response_{i}"]: (row[f"response_{i}_rm_one"], row[f"response_{i}_rm_two"])
        for row in rows
        for i in range(1, 9)
    }
    means = [statistics.fmean(column) for column in zip(*scores.values(), strict=True)]
    spreads = [statistics.pstdev(column) for column in zip(*scores.values(), strict=True)]
    assert len(found.dataset) + sum(found.left_out.values()) == 30 * 6 * 3
    for row in found.dataset:
        weights = found.dataset.users[row.user].traits
        assert math.fsum(weights.values()) == pytest.approx(1)

        def reward(text: str, weights: Any = weights) -> float:
            parts = zip(("rm_one", "rm_two"), scores[text], means, spreads, strict=True)
            return math.fsum(weights[name] * (score - mean) / spread for name, score, mean, spread in parts)

        assert reward(row.chosen) > reward(row.rejected)


@pytest.mark.parametrize("score", [None, math.nan, math.inf, -math.inf, "n/a", "", True, 10**400, 1e200])
def test_a_response_without_all_scores_is_left_out_and_counted(score: Any) -> None:
    rows = [personal(f"p{n}", (0.0, 1.0), (1.0, 0.0), (2.0, 3.0)) for n in range(3)]
    rows[0]["response_1_rm_two"] = score
    rows[1]["response_1_rm_one"] = rows[1]["response_2_rm_one"] = score
    rows[2] |= {"response_3": "EMPTY STRING", "response_1_model": None}
    found = imported("personal-llm", *rows, drawn=Drawn(users=8, pairs=3))
    lacking = "responses without a finite score of each reward model"
    assert found.left_out == {
        lacking: 3,
        "responses without text": 1,
        "prompts with less than two responses that can be used": 1,
    }
    assert found.first[lacking] == "theirs.jsonl, row 1"
    used = {text for row in found.dataset for text in (row.chosen, row.rejected)}
    assert used == {"Answer 2 to p0", "Answer 3 to p0", "Answer 1 to p2", "Answer 2 to p2"}
    assert {row.prompt for row in found.dataset} == {"p0", "p2"}
    assert len(found.dataset) == 8 * 2
    assert set(found.dataset.users["drawn-0"].traits) == {"rm_one", "rm_two"}


def test_scores_written_as_text_are_scores() -> None:
    row = personal("p", (0.0, 1.0), (1.0, 0.0))
    written = {name: str(value) if isinstance(value, float) else value for name, value in row.items()}
    drawn = Drawn(users=8)
    assert imported("personal-llm", written, drawn=drawn) == imported("personal-llm", row, drawn=drawn)


def test_the_smaller_the_concentration_the_fewer_models_a_user_goes_by() -> None:
    row = personal("p", (0.0, 1.0), (1.0, 0.0))

    def heaviest(concentration: float) -> float:
        users = imported("personal-llm", row, drawn=Drawn(80, concentration)).dataset.users.values()
        return statistics.fmean(max(user.traits.values()) for user in users)

    assert heaviest(0.001) > 0.99 > heaviest(1.0) > heaviest(50.0)


def test_labels_of_questions_that_differ_in_a_superscript_stay() -> None:
    rows = [ELIX | {"prompt": "What is 2⁵?"}, ELIX | {"prompt": "What is 25?", "label": 0}]
    found = imported("elix", *rows)
    assert [row.prompt for row in found.dataset] == ["What is 2⁵?", "What is 25?"] and not found.left_out


def test_what_one_user_says_twice_or_both_ways_is_counted() -> None:
    other = ELIX | {"label": 0}
    rows = [ELIX, ELIX, ELIX | {"prompt": "Explain fog."}, ELIX | {"prompt": "Explain ice."}]
    rows += [other | {"prompt": "Explain ice."}, ELIX | {"prompt": "Explain ice."}, other | {"scorer_level": "child"}]
    found = imported("elix", *rows, ELIX | {"prompt": " "}, ELIX | {"response_y": ELIX["response_x"] + " "})
    assert [(row.user, row.prompt) for row in found.dataset] == [
        ("PhD", "Explain tides."),
        ("PhD", "Explain fog."),
        ("child", "Explain tides."),
    ]
    assert found.left_out == {
        "rows repeating an earlier one": 1,
        "rows of a pair that its user labels both ways": 3,
        "rows with an empty user, prompt or response": 1,
        "rows with the same response twice": 1,
    }


def test_of_a_description_that_grows_the_longest_is_kept() -> None:
    persona = ROLEPLAY["score_persona"]
    assert isinstance(persona, dict)
    longer = persona["persona_description"] + " She sleeps at noon."
    rows = [
        ROLEPLAY | {"x": f"{number}?", "score_persona": persona | {"persona_description": text}}
        for number, text in enumerate(["", persona["persona_description"], longer, "A nurse."])
    ]
    assert imported("roleplay", *rows).dataset.users["17"].description == longer


@pytest.mark.parametrize("label", [-1, 0.5, 2])
def test_other_labels_than_0_and_1_say_nothing(label: float) -> None:
    found = imported("elix", ELIX, ELIX | {"prompt": "Explain fog.", "label": label})
    assert len(found.dataset) == 1
    assert found.left_out == {"rows whose label is neither 0 nor 1": 1}


@pytest.mark.parametrize(
    ("kind", "row", "message"),
    [
        ("elix", {k: v for k, v in ELIX.items() if k != "label"}, "theirs.jsonl, row 1, column 'label': missing; rows"),
        ("elix", ELIX | {"label": "x"}, "row 1, column 'label': must be a number"),
        ("elix", ELIX | {"label": math.inf}, "row 1, column 'label': must be a number"),
        ("elix", ELIX | {"label": True}, "row 1, column 'label': must be a number"),
        ("elix", ELIX | {"scorer_level": True}, "row 1, column 'scorer_level': must be text"),
        ("reviews", REVIEWS | {"prompt": 3}, "row 1, column 'prompt': must be text, not int"),
        ("roleplay", ROLEPLAY | {"level": 1.5}, "row 1, column 'level': must be text, not float"),
        ("roleplay", ROLEPLAY | {"score_persona": {"persona_description": 5}}, "'persona_description': must be text"),
        ("prism", prism("i", "a", "perhaps"), "row 1, column 'if_chosen': must be true or false, not 'perhaps'"),
        ("prism", prism("i", "a", 2), "row 1, column 'if_chosen': must be true or false, not 2"),
        ("prism", prism("i", "a", True, turn="first"), "row 1, column 'turn': must be a number, not 'first'"),
        ("roleplay", ROLEPLAY | {"score_persona": "nurse"}, "column 'score_persona': must be an object"),
        ("roleplay", ROLEPLAY | {"x": ["a"]}, "column 'x': must be text, not list"),
        ("reward-bench", BENCH | {"context": "Hi"}, "column 'context': must be a list of messages"),
        ("reward-bench", BENCH | {"chosen": {"role": "assistant"}}, "column 'chosen': must hold"),
        ("personal-llm", {"prompt": "p", "response_1": "a", "response_2": "b"}, "no scores"),
        ("reviews", REVIEWS | {"response_y": "Great!"}, "holds no preference that can be used: 1 row with the same"),
    ],
)
def test_what_is_wrong_is_named(kind: str, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        imported(kind, row)


def test_unknown_kinds_and_draws_that_make_nothing() -> None:
    with pytest.raises(ConfigError, match="did you mean 'elix'"):
        imported("elixx", ELIX)
    for wrong in (
        {"users": 0},
        {"pairs": 0},
        {"concentration": 1e-320},
        {"concentration": math.inf},
        {"concentration": math.nan},
    ):
        with pytest.raises(ConfigError, match="Drawn users need"):
            Drawn(**wrong)
    with pytest.raises(DataError, match="it has no rows"):
        imported("elix")


TEXTS = st.sampled_from(["", " ", "a", "b", "c", "\ud800"])


@given(st.lists(st.tuples(TEXTS, TEXTS, TEXTS, st.sampled_from(["u", "v"]), st.integers(0, 1)), max_size=12))
def test_every_row_is_kept_or_counted(rows: list[tuple[str, str, str, str, int]]) -> None:
    names = ("prompt", "response_x", "response_y", "scorer_level", "label")
    try:
        found = imported("elix", *(dict(zip(names, row, strict=True)) for row in rows))
    except DataError:
        return
    assert len(found.dataset) + sum(found.left_out.values()) == len(rows)


def test_every_kind_says_what_it_is() -> None:
    assert all(published.about and published.columns for published in PUBLISHED.values())
