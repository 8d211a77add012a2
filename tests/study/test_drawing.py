"""What items are drawn from, and how: enough material, no prompt twice, sides and shots spread evenly."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from fspo.errors import ConfigError, DataError
from fspo.study.config import Matching
from fspo.study.drawing import DrawnItem, draw_items
from fspo.study.matching import alike, as_shown, closest, points, whole_sentences
from fspo.study.material import load_material
from tests.study.site import ARMS, study_config

THREE = {name: {"policy": "m"} for name in "abc"}


def drawn(folder: Path, seed: int = 0, participants: Any = None, **changes: Any) -> list[DrawnItem]:
    config = study_config(folder, **changes)
    return draw_items(config, load_material(config), random.Random(seed), participants)


def compared(items: list[DrawnItem]) -> list[DrawnItem]:
    return [item for item in items if item.stage == "compare" and item.first_arm]


def test_no_prompt_comes_twice_and_attention_is_scattered(tmp_path: Path) -> None:
    places: Counter[int] = Counter()
    for seed in range(60):
        items = drawn(tmp_path, seed)
        assert Counter(item.stage for item in items) == {"practice": 1, "label": 4, "compare": 5}
        assert len({item.prompt for item in items}) == len(items)
        labels = [item for item in items if item.stage == "label"]
        places[next(place for place, item in enumerate(labels) if item.correct)] += 1
        for item in items:
            if item.correct:
                assert (item.first if item.correct == "first" else item.second) == "blue"
        assert {item.shots for item in compared(items)} == {3}
    assert set(places) == {1, 2, 3}  # never first


def test_sides_pairs_and_shots_are_spread_evenly(tmp_path: Path) -> None:
    changes = {
        "arms": THREE,
        "comparisons": {"count": 8, "shots": [0, 3]},
        "attention": [],
        "labels": _labels(tmp_path),
    }
    for seed in range(20):
        items = compared(drawn(tmp_path, seed, **changes))
        assert Counter(frozenset((item.first_arm, item.second_arm)) for item in items) == {
            frozenset("ab"): 4,
            frozenset("ac"): 4,
        }
        assert sum(item.first_arm == "a" for item in items) == 4
        assert Counter(item.shots for item in items) == {0: 4, 3: 4}


def test_one_pair_for_each_participant_is_the_one_with_fewest_people(tmp_path: Path) -> None:
    changes = {"arms": THREE, "assignment": "between", "attention": [], "labels": _labels(tmp_path)}
    for counts, pair in (({("a", "b"): 3, ("a", "c"): 1}, {"a", "c"}), ({("a", "c"): 1}, {"a", "b"})):
        for seed in range(5):
            items = compared(drawn(tmp_path, seed, counts, **changes))
            assert all({item.first_arm, item.second_arm} == pair for item in items)


def test_an_odd_number_leaves_neither_arm_first_on_average(tmp_path: Path) -> None:
    changes = {"comparisons": {"count": 3}, "attention": [], "labels": _labels(tmp_path)}
    more = Counter(
        sum(item.first_arm == ARMS[0] for item in compared(drawn(tmp_path, n, **changes))) for n in range(200)
    )
    assert set(more) == {1, 2} and abs(more[1] - 100) < 40


def test_pairs_differ_in_the_traits_that_were_asked_for(tmp_path: Path) -> None:
    rows = [
        {"question": f"Q{number}?", "text": f"{size} {tone} {number}", "traits": {"size": size, "tone": tone}}
        for number in range(12)
        for size in ("small", "large")
        for tone in ("calm", "loud")
    ]
    path = tmp_path / "two.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    labels = {"source": {"file": path, "differ_in": ["size", "tone"]}, "count": 4}
    for seed in range(10):
        items = [item for item in drawn(tmp_path, seed, labels=labels, attention=[]) if item.stage == "label"]
        differing = [
            {trait for trait in ("size", "tone") if item.first_traits[trait] != item.second_traits[trait]}
            for item in items
        ]
        assert all(differing) and sum("size" in one for one in differing) >= 2
        assert sum("tone" in one for one in differing) >= 2
    labels["source"] = {"file": path, "differ_in": ["colour"]}
    with pytest.raises(DataError, match="colour"):
        drawn(tmp_path, labels=labels, attention=[])
    labels["source"] = {"file": path, "differ_in": ["size", "mood"]}
    rare = [{**row, "traits": {**row["traits"], "mood": row["text"]}} for row in rows[:4]]
    path.write_text("".join(json.dumps(row) + "\n" for row in (*rare, *rows[4:])))
    with pytest.raises(DataError, match=r"1 prompt .* 'mood'.* 3"):
        load_material(study_config(tmp_path, labels=labels, attention=[]))


@pytest.mark.parametrize(
    ("changes", "error", "named"),
    [
        ({"labels": {"source": {"domain": "elix-writen"}}}, ConfigError, "elix-written"),
        ({"labels": {"source": {"file": "/nowhere/texts.jsonl"}}}, DataError, "/nowhere/texts.jsonl"),
        ({"comparisons": {"count": 10}}, DataError, "9 prompts"),
        ({"labels": {"source": {"domain": "elix-written"}, "count": 100}}, DataError, "64 prompts"),
        ({"labels": {"source": {"domain": "elix-written", "topics": ["phisics"]}}}, ConfigError, "mean 'physics'"),
        (
            {"labels": {"source": {"domain": "elix-written", "topics": ["fod"]}}},
            ConfigError,
            "there are art and music, .*physics",
        ),
    ],
)
def test_material_that_does_not_suffice_is_named(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], named: str
) -> None:
    with pytest.raises(error, match=named):
        drawn(tmp_path, attention=[], **changes)


def test_a_relative_file_that_is_missing_is_named_with_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(DataError, match=re.escape(f"texts.jsonl with the study's texts in {tmp_path / 'here'};")):
        drawn(tmp_path, labels={"source": {"file": "texts.jsonl"}, "count": 1}, attention=[])


@pytest.mark.parametrize(
    ("line", "named"),
    [("{", "JSON"), ("[]", "line 1"), ('{"text": "x"}', "question"), ('{"question": " "}', "empty")],
)
def test_an_invalid_row_is_named(tmp_path: Path, line: str, named: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(DataError, match=named) as caught:
        drawn(tmp_path, labels={"source": {"file": path}, "count": 1}, attention=[])
    assert "bad.jsonl, line 1" in str(caught.value)


def test_likeness_is_by_length_and_points() -> None:
    loose, strict = Matching(length=None), Matching(length=1.5, viewpoints=True)
    assert alike("one", "one two three four", loose)
    assert alike("one two three", "one two", strict) and not alike("one two three four", "one two", strict)
    assert not alike("One two.\n\nThree four.", "One two three four.", strict)
    assert points("- a\n- b\n- c") == 3 and points("One.\n\nTwo.") == 2 and points("1. only\n\nrest") == 2
    assert not alike("", "words", Matching(length=1.5))


def test_the_pair_that_is_most_alike_is_taken() -> None:
    matching = Matching(length=1.5, viewpoints=True)
    firsts, seconds = ["a b c d e f", "a b c\n\nd e f"], ["a b", "a b c d\n\ne f"]
    assert closest(firsts, seconds, matching) == ("a b c\n\nd e f", "a b c d\n\ne f")
    assert closest(["a b c"], ["x", "x y z w v"], matching) == ("a b c", "x y z w v")


def test_texts_are_shown_in_the_form_of_the_study() -> None:
    text = "# Title\n\n- **one**\n- two\n\nEnd."
    assert as_shown(text, Matching(format="markdown")) == text
    assert as_shown(text, Matching(format="paragraphs")) == "Title\n\none\n\ntwo\n\nEnd."


@pytest.mark.parametrize("form", ["markdown", "paragraphs"])
def test_texts_that_match_make_as_many_points_where_they_are_shown(form: str) -> None:
    matching = Matching.model_validate({"format": form, "length": None, "viewpoints": True})
    texts = [
        "A plan:\n1. Walk.\n2. Sleep.\n3. Eat.",
        "Walk first.\n\nThen sleep.\n\nThen eat.",
        "One.\n\nTwo.\n\nThree.\n\nFour.",
        "- Walk.\n- Sleep.\n- Eat.",
        "Walk, sleep and eat.",
    ]
    pairs = [pair for pair in combinations(texts, 2) if alike(*pair, matching)]
    assert (texts[1], texts[3]) in pairs
    for pair in pairs:
        one, other = (points(as_shown(text, matching)) for text in pair)
        assert one == other, pair


def test_a_pair_to_label_differs_where_it_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "same.jsonl"
    texts = ("**Walk** a lot.", "Walk a lot.", "***")
    path.write_text("".join(json.dumps({"question": "Q?", "text": text}) + "\n" for text in texts))
    with pytest.raises(DataError, match="0 prompts"):
        drawn(tmp_path, labels={"source": {"file": path}, "count": 1}, matching={"length": None}, attention=[])


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("One. Two! And thr", "One. Two!"),
        ('He said "go." Then', 'He said "go."'),
        ("Version 1.5 of it", "Version 1.5 of it"),
        ("أين هو؟ هنا", "أين هو؟"),
        ("Done.", "Done."),
        ("Tips:\n\n1. Walk.\n2. Sleep well\n3. Eat more and", "Tips:\n\n1. Walk.\n2. Sleep well"),
        ("Tips:\n\n1. **Walk** every day.\n\n2. Sleep for", "Tips:\n\n1. **Walk** every day."),
        ("Tips.\n\n**1.** Walk and", "Tips."),
        ("Tips.\n(1) Walk:\n   - in the", "Tips."),
        ("1. Walk\n2.", "1. Walk"),
        ("- Walk - a lot\n- Sleep for", "- Walk - a lot"),
    ],
)
def test_an_answer_that_reached_its_limit_ends_with_a_sentence(text: str, whole: str) -> None:
    assert whole_sentences(text) == whole


def _labels(folder: Path) -> dict[str, Any]:
    return {"source": {"file": folder / "texts.jsonl"}, "count": 3}
