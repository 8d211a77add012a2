from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fspo.errors import DataError, StorageError
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.formats import (
    from_table,
    from_trl_rows,
    person_of,
    read_jsonl,
    read_preferences,
    read_trl,
    to_trl_rows,
    write_jsonl,
    write_trl,
)
from fspo.preferences.types import Preference, Turn, User
from tests.preferences.worlds import datasets, grid


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


GOOD = {"user": "ann", "prompt": "why?", "chosen": "so", "rejected": "thus"}


@given(datasets())
def test_jsonl_comes_back_as_it_was(dataset: PreferenceDataset) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write_jsonl(dataset, Path(folder) / "views.jsonl")
        assert read_jsonl(path) == dataset
        assert len(path.read_bytes().splitlines()) >= len(dataset)


@given(datasets(), st.booleans(), st.sampled_from([".jsonl", ".parquet"]))
def test_trl_comes_back_as_it_was(dataset: PreferenceDataset, conversational: bool, suffix: str) -> None:
    with_rows = {row.user for row in dataset}  # TRL's format has no place for users without preferences
    dataset = dataset.select(users=with_rows)
    with tempfile.TemporaryDirectory() as folder:
        path = write_trl(dataset, Path(folder) / f"views{suffix}", conversational=conversational)
        again = read_trl(path)
    assert again.preferences == dataset.preferences
    assert dict(again.users) == dict(dataset.users)


def test_a_line_of_jsonl_holds_what_there_is_to_say(tmp_path: Path) -> None:
    users = [User("ann", "Likes films", {"length": 1.0}), User("bob")]
    dataset = PreferenceDataset(users, [Preference("ann", "why?", "so", "thus")])
    write_jsonl(dataset, tmp_path / "views.jsonl")
    assert (tmp_path / "views.jsonl").read_text() == json.dumps(GOOD) + "\n"
    assert (tmp_path / "views.users.jsonl").read_text() == (
        '{"id": "ann", "description": "Likes films", "traits": {"length": 1.0}}\n{"id": "bob"}\n'
    )


def test_users_can_be_missing_or_elsewhere(tmp_path: Path) -> None:
    path = lines(tmp_path / "views.jsonl", GOOD, {**GOOD, "user": "bob"})
    assert list(read_jsonl(path).users) == ["ann", "bob"]
    people = lines(tmp_path / "people.jsonl", {"id": "bob", "group": "staff"}, {"id": "ann"})
    assert read_jsonl(path, people).users["bob"] == User("bob", group="staff")
    with pytest.raises(StorageError, match=r"no file or folder .*nobody\.jsonl"):
        read_jsonl(path, tmp_path / "nobody.jsonl")
    lines(people, {"id": "ann"}, {"id": "ann"})
    with pytest.raises(DataError, match=r"people\.jsonl, row 2, column 'id': user 'ann' occurs twice"):
        read_jsonl(path, people)


def test_columns_of_other_names_can_be_told(tmp_path: Path) -> None:
    path = lines(tmp_path / "v.jsonl", {"seat": 3, "prompt": "why?", "chosen": "so", "rejected": "thus"})
    with pytest.raises(
        DataError, match=r"v\.jsonl, row 1, column 'user': missing; the row has the columns: seat.*columns="
    ):
        read_jsonl(path)
    assert read_jsonl(path, columns={"user": "seat"}).preferences == (Preference("3", "why?", "so", "thus"),)
    with pytest.raises(DataError, match="column 'rater': missing"):
        read_jsonl(path, columns={"user": "rater"})


def test_two_columns_can_change_names_and_none_is_lost(tmp_path: Path) -> None:
    path = lines(tmp_path / "v.jsonl", GOOD)
    swapped = read_jsonl(path, columns={"chosen": "rejected", "rejected": "chosen"})
    assert swapped.preferences == (Preference("ann", "why?", "thus", "so"),)
    lines(path, {**GOOD, "annotator": "bob"})
    with pytest.raises(DataError, match=r"row 1, column 'user': the row has 'annotator' too, and only one"):
        read_jsonl(path, columns={"user": "annotator"})


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"{", "row 3: not a line of JSON"),
        (b"\xff{}", "row 3: not a line of JSON in UTF-8"),
        (b"[1]", "row 3: must be an object with named columns, not list"),
        (b'{"user":' + b"[" * 100_000, "row 3: too many lists and objects inside one another"),
        (json.dumps({**GOOD, "user": "\ud83d"}).encode(), "row 3, column 'user': holds half of a surrogate pair"),
        (b'{"user": "ann", "prompt": "p", "chosen": "a", "rejected": "a"}', "row 3, column 'rejected': the same text"),
        (
            b'{"user": "ann", "promt": "p", "chosen": "a", "rejected": "b"}',
            "column 'prompt': missing; the row has the columns: user, promt, chosen, rejected. Rename 'promt'",
        ),
        (json.dumps(GOOD).encode(), "row 3 (row 1). Delete"),
    ],
)
def test_rows_are_lines_as_an_editor_counts_them(tmp_path: Path, line: bytes, says: str) -> None:
    path = tmp_path / "views.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b"\n\n" + line + b"\n")
    with pytest.raises(DataError, match=r"views\.jsonl, row 3") as caught:
        read_jsonl(path)
    assert says in str(caught.value)


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "views.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r\n")
    assert len(read_jsonl(path)) == 1


def test_trl_rows_are_what_trl_documents() -> None:
    row = next(to_trl_rows(grid()))
    assert (row["prompt"], row["chosen"], row["rejected"]) == (
        "What about 0?",
        "A long answer to 0",
        "A short answer to 0",
    )
    assert (row["user"], row["user_description"], row["user_traits"]) == ("u0", "Person 0", '{"length": 1.0}')
    row = next(to_trl_rows(grid(), conversational=True))
    assert row["prompt"] == [{"role": "user", "content": "What about 0?"}]
    assert row["chosen"] == [{"role": "assistant", "content": "A long answer to 0"}]


def message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


QUESTION = message("user", "why?")
SAID = [message("assistant", "so"), message("assistant", "thus")]
CONVERSATION = [QUESTION, message("assistant", "how so?"), message("user", "why not?"), message("assistant", "hm")]


@pytest.mark.parametrize("prompt", [{"prompt": "why?"}, {"prompt": None}, {"prompt": "Human: why?"}, {}])
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_whole_conversations_are_taken_with_and_without_a_prompt_beside(
    tmp_path: Path, prompt: dict[str, Any], suffix: str
) -> None:
    import datasets as hub

    # As in the best-known sets of feedback: the question as text, and once more at the beginning of both answers.
    row = {**prompt, "user": "ann", "chosen": [QUESTION, SAID[0]], "rejected": [QUESTION, SAID[1]]}
    path = tmp_path / f"rows{suffix}"
    if suffix == ".jsonl":
        lines(path, row)
    else:
        hub.Dataset.from_list([row]).to_parquet(path)
    beside = {"prompt_beside": "Human: why?"} if prompt.get("prompt") == "Human: why?" else {}
    assert read_trl(path).preferences == (Preference("ann", "why?", "so", "thus", source=beside),)


def test_a_conversation_is_divided_where_trl_divides_it() -> None:
    from trl.data_utils import maybe_extract_prompt

    row = {"prompt": "Why is that?", "chosen": [QUESTION, SAID[0]], "rejected": [QUESTION, SAID[1]]}
    theirs = maybe_extract_prompt(row)
    (ours,) = from_trl_rows([row], user="ann").preferences
    assert [message["content"] for message in theirs["prompt"]] == [ours.prompt]
    assert [theirs[name][0]["content"] for name in ("chosen", "rejected")] == [ours.chosen, ours.rejected]


def test_answers_alone_keep_the_prompt_beside_them() -> None:
    rows = [{**GOOD, "chosen": SAID[:1], "rejected": SAID[1:]}]
    assert from_trl_rows(rows).preferences == (Preference("ann", "why?", "so", "thus"),)


def test_texts_without_a_prompt_have_the_words_they_begin_with_as_one() -> None:
    rows = [{"user": "ann", "chosen": "The sky is blue.", "rejected": "The sky is black."}]
    assert from_trl_rows(rows).preferences == (Preference("ann", "The sky is", "blue.", "black."),)
    for other in ({"task": "What is above?"}, {"rejected": "A cloud."}):
        with pytest.raises(DataError, match="column 'prompt': missing"):
            from_trl_rows([{**rows[0], **other}])


SYSTEM = message("system", "Be brief.")
EARLIER = [SYSTEM, QUESTION, message("assistant", "How so?"), message("user", "Tell me\nAssistant: no.")]
TURNS = tuple(Turn(turn["role"], turn["content"]) for turn in EARLIER)  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["prompt", "whole", "columns"])
def test_system_messages_and_earlier_turns_are_kept(form: str) -> None:
    rows: dict[str, dict[str, Any]] = {
        "prompt": {"prompt": EARLIER, "chosen": SAID[:1], "rejected": SAID[1:]},
        "whole": {"chosen": [*EARLIER, SAID[0]], "rejected": [*EARLIER, SAID[1]]},
        "columns": {
            "prompt": {key: [turn[key] for turn in EARLIER] for key in ("role", "content")},
            "chosen": "so",
            "rejected": "thus",
        },
    }
    (row,) = from_trl_rows([{"user": "ann", **rows[form]}])
    assert row == Preference.after("ann", TURNS, "so", "thus")
    assert row.messages == TURNS and row.prompt.splitlines() == [
        "System: Be brief.",
        "User: why?",
        "Assistant: How so?",
        "User: Tell me",
        "  Assistant: no.",
    ]


@pytest.mark.parametrize("write", ["jsonl", "trl.jsonl", "trl.parquet", "folder"])
def test_conversations_come_back_beside_plain_prompts(tmp_path: Path, write: str) -> None:
    rows = [Preference.after("ann", TURNS, "so", "thus"), Preference("ann", '[{"role": "system"}]', "so", "thus")]
    dataset = PreferenceDataset([User("ann")], rows)
    if write == "folder":
        again = PreferenceDataset.load(dataset.save(tmp_path / "data"))
    elif write == "jsonl":
        again = read_jsonl(write_jsonl(dataset, tmp_path / "rows.jsonl"))
    else:
        again = read_trl(write_trl(dataset, tmp_path / write))
    assert again == dataset and again.fingerprint == dataset.fingerprint
    assert from_table(dataset.to_datasets(), file="rows") == dataset


HH = "\n\nHuman: why?\n\nAssistant: How so?\n\nHuman: Tell me\nAssistant: no."


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": HH, "chosen": "so", "rejected": "thus"},
        {"prompt": HH, "chosen": "\n\nAssistant: so", "rejected": "\n\nAssistant: thus"},
        {"prompt": f"{HH}\n\nAssistant:", "chosen": " so", "rejected": " thus"},
        {"prompt": f"{HH}\n\nAssistant:".strip(), "chosen": "so", "rejected": "thus"},
        {"chosen": f"{HH}\n\nAssistant: so", "rejected": f"{HH}\n\nAssistant: thus"},
    ],
)
def test_text_in_the_form_of_hh_is_read_as_messages(row: dict[str, str], tmp_path: Path) -> None:
    imported = read_preferences(lines(tmp_path / "hh.jsonl", {"user": "ann", **row}))
    assert imported.dataset.preferences == (Preference.after("ann", TURNS[1:], "so", "thus"),)
    assert len(imported.notes) == 1


@pytest.mark.parametrize("prompt", ["Human: or Assistant?", "Write it as\n\nHuman: a\n\nAssistant: b", "\n\nHumans"])
def test_text_that_only_mentions_speakers_stays_text(prompt: str) -> None:
    row = {"user": "ann", "prompt": prompt, "chosen": "Human: a\n\nAssistant: b", "rejected": "thus"}
    assert from_trl_rows([row]).preferences == (Preference(**row),)


def test_a_prompt_beside_a_conversation_says_the_same(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "why?"}, SAID[0], {"role": "user", "content": "and?"}]
    path = lines(tmp_path / "v.jsonl", {**GOOD, "prompt": "why?", "prompt_turns": turns})
    with pytest.raises(DataError, match=r"row 1, column 'prompt': not the text of the messages in 'prompt_turns'"):
        read_jsonl(path)


def test_an_implicit_prompt_is_what_both_conversations_begin_with() -> None:
    question = message("user", "why?")
    rows = [
        {
            "user": "ann",
            "chosen": [question, message("assistant", "so")],
            "rejected": [question, message("assistant", "thus")],
        }
    ]
    assert from_trl_rows(rows).preferences == (Preference("ann", "why?", "so", "thus"),)


@pytest.mark.parametrize("asked", ["why?", [message("user", "why?")]])
def test_a_prompt_beside_single_messages_may_have_another_name(asked: Any) -> None:
    answers = {"chosen": [message("assistant", "so")], "rejected": [message("assistant", "thus")]}
    rows = [{"user": "ann", "instruction": asked, **answers}]
    assert from_trl_rows(rows).preferences == (Preference("ann", "why?", "so", "thus"),)


@pytest.mark.parametrize(
    "held",
    [
        lambda messages: {"messages": messages},
        lambda messages: {part: [said[part] for said in messages] for part in ("role", "content")},
    ],
)
def test_an_id_beside_whole_conversations_stays_one(held: Callable[[list[dict[str, str]]], Any]) -> None:
    question = message("user", "why?")
    answers = {"chosen": held([question, SAID[0]]), "rejected": held([question, SAID[1]])}
    (row,) = from_trl_rows([{"user": "ann", "question": "q7", **answers}]).preferences
    assert (row.question, row.prompt) == ("q7", "why?")


def test_openai_rows_are_read() -> None:
    row = {
        "user": "ann",
        "input": {"messages": [message("user", "why?")], "tools": [], "parallel_tool_calls": True},
        "preferred_output": [message("assistant", "so")],
        "non_preferred_output": [message("assistant", "thus")],
    }
    assert from_trl_rows([row]).preferences == (Preference("ann", "why?", "so", "thus"),)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"prompt": [message("system", "Be brief")]}, "'prompt': no prompt: A prompt is an optional system message"),
        ({"prompt": [*SAID[:1], message("user", "why?")]}, "the user's first and last; this one has: assistant, user."),
        ({"prompt": [QUESTION, SAID[0], QUESTION, QUESTION]}, "this one has: user, assistant, user, user."),
        ({"prompt": [message("tool", "42")]}, "'prompt': must hold messages"),
        ({"prompt": [message("user", " ")]}, "'prompt': no prompt: A prompt has an empty message"),
        ({"chosen": []}, "'chosen': has, after the prompt, 0 messages"),
        (
            {"chosen": CONVERSATION, "rejected": [QUESTION, *SAID[1:]]},
            "'chosen': has, after the prompt, 3 messages",
        ),
        ({"chosen": [QUESTION, *SAID], "rejected": SAID}, "'chosen': both conversations must begin with the question"),
        ({"chosen": [QUESTION, SAID[0]], "rejected": [QUESTION, SAID[0]]}, "'rejected': the same text as chosen"),
        ({"chosen": ["so"]}, "'chosen': must hold messages"),
        ({"chosen": {"role": ["assistant"], "content": None}}, "'chosen': must be text"),
        ({"chosen": [QUESTION]}, "'chosen': must be a message of the assistant, not of the role user"),
        ({"user_traits": "["}, "'traits': must be a JSON object"),
        ({"user": "\ud83d"}, "'user': holds half of a surrogate pair"),
        ({"user": "bob", "user_description": "\ud83d"}, "'user_description': holds half of a surrogate pair"),
    ],
)
def test_conversations_that_fspo_does_not_render_are_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError) as caught:
        from_trl_rows([GOOD, {**GOOD, **change}])
    assert str(caught.value).startswith("rows, row 2, column") and says in str(caught.value)


def test_rows_without_users_need_one_to_be_named() -> None:
    row = {"prompt": "why?", "chosen": "so", "rejected": "thus"}
    with pytest.raises(DataError, match="column 'user': missing"):
        from_trl_rows([row])
    for nobody in ({}, {"user": None}, {"user": ""}):
        assert list(from_trl_rows([{**row, **nobody}], user="everybody").users) == ["everybody"]
    assert list(from_trl_rows([{**row, "user": 0}], user="everybody").users) == ["0"]


def test_a_user_described_in_two_ways_is_refused() -> None:
    rows = [{**GOOD, "user_description": "tall"}, {**GOOD, "prompt": "how?", "user_description": "short"}]
    with pytest.raises(DataError, match=r"row 2.*not the same as in an earlier row of user 'ann'"):
        from_trl_rows(rows)


def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"must end in \.jsonl or \.parquet"):
        write_trl(grid(), tmp_path / "views.csv")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("conversational", [False, True])
def test_the_datasets_library_reads_it_and_gives_it_back(tmp_path: Path, conversational: bool) -> None:
    import datasets as hub

    path = write_trl(grid(), tmp_path / "views.parquet", conversational=conversational)
    rows = hub.Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "cache"))
    assert isinstance(rows, hub.Dataset)
    assert from_trl_rows(rows) == grid()


def test_tables_of_every_kind_make_the_same_dataset(tmp_path: Path) -> None:
    import datasets as hub
    import pandas as pd

    rows = [{**GOOD, "user": user, "prompt": prompt} for user in ("ann", "bob") for prompt in ("why?", "how?")]
    expected = from_trl_rows(rows)
    assert from_table(rows, file="rows") == expected
    assert from_table(pd.DataFrame(rows), file="rows") == expected
    assert from_table(hub.Dataset.from_list(rows), file="rows") == expected
    assert from_table(expected, file="rows") is expected
    spoken = [{**row, "prompt": [{"role": "user", "content": row["prompt"]}]} for row in rows]
    assert from_table(pd.DataFrame(spoken), file="rows") == expected
    pd.DataFrame(spoken).to_parquet(tmp_path / "spoken.parquet")
    assert from_table(pd.read_parquet(tmp_path / "spoken.parquet"), file="rows") == expected


def test_columns_of_ones_own_stay_with_a_tables_rows() -> None:
    import pandas as pd

    frame = pd.DataFrame([{**GOOD, "user": 7, "when": pd.Timestamp("2026-01-02"), "score": float("nan")}])
    dataset = from_table(frame, file="rows")
    assert dataset.preferences[0].user == "7"
    assert dict(dataset.preferences[0].source) == {"when": "2026-01-02 00:00:00", "score": None}
    assert dataset.fingerprint


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([GOOD, {**GOOD, "prompt": "how?", "chosen": None}], r"rows, row 2, column 'chosen': empty"),
        ([GOOD, {**GOOD, "prompt": "how?", "chosen": "thus"}], r"rows, row 2, column 'rejected': the same text"),
        ([{**GOOD, "chosen": 3.5}], r"rows, row 1, column 'chosen': must be text, not float"),
        ([{k: v for k, v in GOOD.items() if k != "user"}], r"rows, row 1, column 'user': missing"),
        ([{**GOOD, "choosen": "so", "chosen": None}], r"column 'chosen': empty"),
        (
            [{"user": "ann", "prompt": "why?", "choosen": "so", "rejected": "thus"}],
            r"rows, row 1, column 'chosen': missing; .* Did you mean to rename 'choosen' to 'chosen'\?$",
        ),
    ],
)
def test_what_is_wrong_with_a_table_is_named_by_row_and_column(rows: list[dict[str, Any]], message: str) -> None:
    import pandas as pd

    for table in (rows, pd.DataFrame(rows)):
        with pytest.raises(DataError, match=message):
            from_table(table, file="rows")


@pytest.mark.parametrize("table", ["rows.csv", {"user": ["ann"]}, 3, None])
def test_what_is_no_table_is_refused(table: Any) -> None:
    with pytest.raises(DataError, match="train_dataset must be a pandas DataFrame"):
        from_table(table, file="train_dataset")
    with pytest.raises(DataError, match="row 1: must have named columns"):
        from_table([("ann", "why?")], file="train_dataset")


MISSPELT = {"user": "ann", "promt": "why?", "chosen": "so", "rejected": "thus"}


def test_rows_that_can_not_be_read_are_counted_with_all_others(tmp_path: Path) -> None:
    path = lines(tmp_path / "views.jsonl", GOOD, GOOD | {"prompt": "when?", "rejected": "so"}, GOOD, MISSPELT, MISSPELT)
    for read in (read_jsonl, read_trl):
        with pytest.raises(DataError) as caught:
            read(path)
        assert "row 2, column 'rejected': the same text as chosen" in str(caught.value)
        # Rows 4 and 5 have a column misspelt. Row 3 repeats row 1.
        assert " (2 more rows with problems: row 4, column 'prompt'; row 5, column 'prompt'.) 1 row with" in str(
            caught.value
        )
        assert "row 3 (row 1)" in str(caught.value)
    path.write_text(path.read_text() + "{broken\n")
    with pytest.raises(
        DataError, match=r"row 2, .* \(3 more rows with problems: row 4, column 'prompt'; row 5, .*; row 6.*\.\) 1 row"
    ):
        read_jsonl(path)


def test_very_many_faults_are_not_all_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fspo.preferences.validation._COUNTED", 20)
    path = lines(tmp_path / "views.jsonl", *[GOOD | {"chosen": "thus"}] * 50)
    for read in (read_jsonl, read_trl):
        with pytest.raises(
            DataError, match=r"row 1, .* \(at least 20 more rows with problems: row 2, .*; row 10, .*; and 11 more\.\)$"
        ):
            read(path)


def test_an_error_names_the_columns_that_were_given() -> None:
    with pytest.raises(DataError, match=r"'rejected': missing; the row has the columns: prompt, chosen\.$"):
        person_of([{"prompt": "why?", "chosen": "so"}])
