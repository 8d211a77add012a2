"""Tables of answers as people have them, and what is wrong with some."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fspo.errors import ConfigError, DataError
from fspo.evaluation.systems.answer_tables import SystemAnswers, read_answers

WIDE: list[dict[str, Any]] = [{"user": "ann", "prompt": "Why?", "ours": "Because.", "theirs": "No idea."}]


def file_of(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def texts(found: SystemAnswers) -> dict[str, list[str]]:
    return {system: list(own.values()) for system, own in found.answers.items()}


def test_all_layouts_say_the_same(tmp_path: Path) -> None:
    mapped = [{"user": "ann", "prompt": "Why?", "answers": {"ours": "Because.", "theirs": "No idea."}}]
    long = [
        {"user": "ann", "instruction": "Why?", "generator": "ours", "output": "Because."},
        {"user": "ann", "instruction": "Why?", "generator": "theirs", "output": "No idea."},
    ]
    own = [{name: row[name] for name in ("user", "instruction", "output")} for row in long]
    named = [file_of(tmp_path / f"{name}.jsonl", [row]) for name, row in zip(("ours", "theirs"), own, strict=True)]
    csv = tmp_path / "wide.csv"
    csv.write_text("user,prompt,ours,theirs\nann,Why?,Because.,No idea.\n")
    for given in (WIDE, mapped, long, named, [csv], [file_of(tmp_path / "wide.jsonl", WIDE)]):
        found = read_answers(given)
        assert found.answers == {"ours": {("ann", "Why?"): "Because."}, "theirs": {("ann", "Why?"): "No idea."}}
        assert list(found.users) == ["ann"] and not found.anybody


def test_alpaca_evals_files_need_no_user(tmp_path: Path) -> None:
    rows = [{"instruction": f"{n}?", "output": f"{n}.", "generator": "a/b", "dataset": "x"} for n in range(3)]
    ours = tmp_path / "outputs.json"
    ours.write_text(json.dumps(rows, indent=1))
    theirs = tmp_path / "reference.json"
    theirs.write_text(json.dumps([row | {"generator": "gpt"} for row in rows]))
    found = read_answers([ours, theirs])
    assert found.anybody and len(found.users) == 3
    assert texts(found) == {"a/b": ["0.", "1.", "2."], "gpt": ["0.", "1.", "2."]}


def test_the_turns_of_a_conversation_are_kept_beside_its_transcript() -> None:
    said = [("user", "Hi."), ("assistant", "Hello!"), ("user", "Why?")]
    talk = [{"role": role, "content": text} for role, text in said]
    found = read_answers([*WIDE, WIDE[0] | {"prompt": talk}])
    ((text, turns),) = found.conversations.items()
    assert [prompt for _, prompt in found.asked] == ["Why?", text]
    assert [(turn.role, turn.text) for turn in turns] == said


def test_what_rows_say_of_a_user_is_kept() -> None:
    told: list[dict[str, Any]] = [
        WIDE[0] | {"persona": "Likes it short.", "traits": {"length": -1}},
        WIDE[0] | {"prompt": "How?"},
    ]
    user = read_answers(told).users["ann"]
    assert (user.description, dict(user.traits)) == ("Likes it short.", {"length": -1.0})
    with pytest.raises(DataError, match=r"answers, row 2.*earlier row of user 'ann'"):
        read_answers([told[0], told[1] | {"persona": "Likes it long."}])


def test_a_missing_answer_is_none_and_an_empty_one_is_an_answer() -> None:
    found = read_answers([*WIDE, {"user": "ann", "prompt": "How?", "ours": "", "theirs": None}])
    assert texts(found) == {"ours": ["Because.", ""], "theirs": ["No idea."]}
    assert len(found.asked) == 2 and "answers, row 2" in found.notes[0]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([*WIDE, WIDE[0] | {"ours": "Else."}], "row 2.*'ours'.*row 1"),
        ([{"user": "ann", "prompt": "Why?", "ours": "Because."}], "at least two systems.*only 'ours'"),
        ([*WIDE, {**WIDE[0], "user": ""}], "row 2, column 'user'"),
        ([*WIDE, {"user": "ann", "prompt": " ", "ours": "x", "theirs": "y"}], "row 2, column 'prompt'"),
        ([WIDE[0] | {"length": 3}], "row 1, column 'length'.*systems="),
        ([{"user": "ann", "prompt": "Why?"}] * 9, r"row 1: there is no answer.*NAME.\}\.$"),
        ([{"promt": "Why?", "ours": "So.", "theirs": "Thus."}] * 9, r"row 1, column 'prompt': missing.*promt.\}\.$"),
        ([{"query": "Why?", "input": "", "ours": "So."}] * 9, r"row 1, column 'prompt': may be .*query.\}\.$"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_row(tmp_path: Path, rows: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_answers([file_of(tmp_path / "o.jsonl", rows)])


def test_a_repeated_row_counts_once(tmp_path: Path) -> None:
    found = read_answers([file_of(tmp_path / "o.jsonl", WIDE * 2)])
    assert texts(found) == {"ours": ["Because."], "theirs": ["No idea."]}
    assert "o.jsonl, row 2" in found.notes[0]


def test_systems_can_be_chosen_and_misspelt() -> None:
    rows = [WIDE[0] | {"others": "Who knows?"}]
    assert set(read_answers(rows, systems=["ours", "others"]).answers) == {"ours", "others"}
    with pytest.raises(DataError, match="did you mean 'theirs'"):
        read_answers(WIDE, systems=["thiers"])


def test_a_column_that_is_named_is_there() -> None:
    rows = [{"seat": seat, "prompt": "Why?", "ours": "Because.", "theirs": "No idea."} for seat in ("ann", "bob")]
    assert list(read_answers(rows, columns={"user": "seat"}).users) == ["ann", "bob"]
    with pytest.raises(DataError, match=r"No row has a column 'saet', .*'user'; did you mean 'seat'"):
        read_answers(rows, columns={"user": "saet"}, systems=["ours", "theirs"])
    with pytest.raises(ConfigError, match="no column 'usr' of its own; did you mean 'user'"):
        read_answers(rows, columns={"usr": "seat"}, systems=["ours", "theirs"])


def test_the_users_column_is_no_system_where_the_first_row_lacks_it() -> None:
    with pytest.raises(DataError, match="row 1, column 'user': empty, but other rows name their user"):
        read_answers(
            [
                {"prompt": "Why?", "ours": "Because.", "theirs": "No idea."},
                {"user_id": "ann", "prompt": "How?", "ours": "So.", "theirs": "No."},
            ]
        )


def test_numbers_name_the_users_that_an_import_names() -> None:
    assert list(read_answers([WIDE[0] | {"user": number} for number in (1.0, 2)]).users) == ["1", "2"]


def test_a_column_of_numbers_that_is_taken_as_a_system_is_told() -> None:
    rows = [WIDE[0] | {"score": "0.9"}, WIDE[0] | {"prompt": "How?", "score": "-2"}]
    (note,) = read_answers(rows).notes
    assert "'score'" in note and 'systems=["NAME"]' in note
    assert not read_answers(rows, systems=["ours", "theirs"]).notes
    assert not read_answers([{"user": "ann", "prompt": "1 + 1?", "ours": "2", "theirs": "3"}]).notes
    assert not read_answers([*rows, WIDE[0] | {"prompt": "Who?", "score": "Nobody."}]).notes


def test_a_file_that_is_no_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "o.txt").write_text("hello\n")
    with pytest.raises(DataError, match=r"o\.txt is neither"):
        read_answers([tmp_path / "o.txt"])


def test_unknown_users_are_named_with_their_row() -> None:
    with pytest.raises(DataError, match="answers, row 1: ratings has no user 'ann'; did you mean 'anne'"):
        read_answers(WIDE).check_users(["anne", "ben"], "ratings")
    with pytest.raises(DataError, match="In all, 2 users are unknown"):
        read_answers([*WIDE, WIDE[0] | {"user": "bob"}]).check_users(["dan"], "ratings")
