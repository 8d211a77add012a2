from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pytest

from fspo.errors import DataError
from fspo.preferences.types import Preference, Turn, User
from fspo.preferences.validation import (
    TableColumns,
    check_dataset,
    find_problems,
    parse_preference,
    parse_user,
    prompt_of,
)
from fspo.printing import on_command_line

GOOD: dict[str, Any] = {"user": "ann", "prompt": "why?", "chosen": "so", "rejected": "thus"}
USERS = {"ann": User("ann"), "bob": User("bob")}


def nested(depth: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(depth - 1):
        inner = [inner]
    return inner


def refused(row: dict[str, Any]) -> str:
    with pytest.raises(DataError) as caught:
        parse_preference(row, file="views.jsonl", number=7)
    return str(caught.value)


def test_a_good_row_needs_four_columns_alone() -> None:
    assert parse_preference(GOOD, file="f", number=1) == Preference("ann", "why?", "so", "thus")


def test_columns_of_one_s_own_are_kept_in_the_source() -> None:
    row = parse_preference({**GOOD, "country": "NZ", "source": {"model": "m"}}, file="f", number=1)
    assert row.source == {"country": "NZ", "model": "m"}


def test_dates_and_times_are_kept_as_text() -> None:
    row = {**GOOD, "day": date(2024, 5, 1), "at": [time(9)], "source": {"when": datetime(2024, 5, 1, 9, tzinfo=UTC)}}
    source = parse_preference(row, file="f", number=1).source
    assert source == {"day": "2024-05-01", "at": ["09:00:00"], "when": "2024-05-01T09:00:00+00:00"}
    assert parse_preference({**GOOD, "tree": nested(100)}, file="f", number=1).source == {"tree": nested(100)}


def test_numbers_as_ids_become_text() -> None:
    row = parse_preference({**GOOD, "user": 17, "question": 4.0}, file="f", number=1)
    assert (row.user, row.question) == ("17", "4")


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (
            {**{k: v for k, v in GOOD.items() if k != "chosen"}, "chosn": "so"},
            "Did you mean to rename 'chosn' to 'chosen'?",
        ),
        ({**GOOD, "questoin": "q"}, "'questoin': unknown; did you mean 'question'?"),
        (
            {k: v for k, v in GOOD.items() if k != "user"},
            "'user': missing; the row has the columns: prompt, chosen, rejected",
        ),
        ({**GOOD, "prompt": ["why?"]}, "'prompt': must hold messages"),
        ({**GOOD, "chosen": 3}, "'chosen': must be text, not int"),
        ({**GOOD, "user": True}, "'user': must be text, not bool"),
        ({**GOOD, "source": "{"}, "'source': must be a JSON object"),
        ({**GOOD, "source": [1]}, "'source': must be an object"),
        ({**GOOD, "source": "[" * 100_000}, "'source': must be a JSON object"),
        ({**GOOD, "price": Decimal("1.5")}, "'price': holds a value of the type Decimal, which JSON doesn't have"),
        ({**GOOD, "raw": {"bytes": [b"1"]}}, "'raw': holds a value of the type bytes, which JSON doesn't have"),
        ({**GOOD, "source": {"when": timedelta(1)}}, "'source': holds a value of the type timedelta"),
        ({**GOOD, "source": {"a": {1: "b"}}}, "'source': holds a value of the type dict"),
        ({**GOOD, "tree": nested(101)}, "'tree': more than 100 lists and objects inside one another"),
    ],
)
def test_a_bad_row_is_named_by_file_row_and_column(row: dict[str, Any], says: str) -> None:
    message = refused(row)
    assert message.startswith("views.jsonl, row 7, column ")
    assert says in message


@pytest.mark.parametrize("names", [("response_a", "response_b"), ("Answer 1", "Answer 2"), ("a", "b")])
def test_a_numbered_response_is_not_proposed_as_the_chosen_one(names: tuple[str, str]) -> None:
    first, second = names
    message = refused({"user": "ann", "prompt": "why?", first: "so", second: "thus", "label": first})
    assert f" '{first}' and '{second}' don't say which response is preferred" in message
    assert "ename" not in message


def test_where_columns_can_be_named_the_option_is_told() -> None:
    row = {**GOOD, "question_id": "q"}
    assert refused(row).endswith("did you mean 'question'?")
    table = TableColumns(tuple(row), {})
    with pytest.raises(
        DataError, match=r"'question'\? If so, .* import it with columns=\{\"question\": \"question_id\"\}"
    ):
        parse_preference(row, file="f", number=1, table=table)
    with on_command_line(), pytest.raises(DataError, match=r"import it with --column question=question_id\.$"):
        parse_preference(row, file="f", number=1, table=table)


def test_a_column_that_is_read_as_another_one_is_not_called_missing() -> None:
    row = {"user": "ann", "question": "why?", "chosen": "so", "rejected": "thus"}
    table = TableColumns(("user", "prompt", "chosen", "rejected"), {}, read_as={"question": "prompt"})
    with on_command_line(), pytest.raises(DataError, match="row 2, column 'prompt': already used for 'question'; "):
        parse_preference(row, file="f.csv", number=2, table=table)


def test_all_missing_columns_are_named_at_once_as_the_table_calls_them() -> None:
    row = {"user": "ann", "promt": "why?", "bestone": "so", "loser": "thus"}
    table = TableColumns(("annotator", "promt", "bestone", "loser"), {"chosen": ("best_one",), "rejected": ("user",)})
    with on_command_line(), pytest.raises(DataError) as caught:
        parse_preference(row, file="f.csv", number=2, table=table)
    assert str(caught.value) == (
        "f.csv, row 2, columns 'prompt', 'chosen', 'rejected': missing; the row has the columns: annotator, promt, "
        "bestone, loser. Rename 'promt' to 'prompt' and 'bestone' to 'chosen', or name yours with --column "
        "prompt=promt --column chosen=bestone --column rejected=NAME."
    )
    assert "Did you mean to rename 'promt' to 'prompt'?" in refused(row)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"id": "a", "traits": {"length": "much"}}, "'traits': the weight of 'length' must be a finite number"),
        ({"id": "a", "traits": {"length": float("nan")}}, "must be a finite number, not nan"),
        ({"id": "a", "traits": {"length": 10**400}}, "finite number, not 1000000000000000000000000000000000000000."),
        ({"id": "a", "traits": {"length": True}}, "must be a finite number, not True"),
        ({"id": "a", "age": 4}, "'age': unknown; a user has id, description, group, traits"),
        ({"id": "a", "desciption": "x"}, "did you mean 'description'?"),
        ({"name": "a"}, "'id': missing"),
    ],
)
def test_a_bad_user_is_named_too(row: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match="users, row 2, column") as caught:
        parse_user(row, file="users", number=2)
    assert says in str(caught.value)


def test_a_prompt_is_text_turns_or_messages() -> None:
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": " "},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
    ]
    assert prompt_of("Hi") == "Hi"
    assert prompt_of(messages) == prompt_of([Turn("user", "Hi")]) == (Turn("user", "Hi"),)
    wrong: list[Any] = [messages[1], ["Hi"], [{"role": "robot", "content": "Hi"}], [{"role": "user"}], 3, None]
    for given in wrong:
        with pytest.raises(DataError, match=r'^A prompt is text, or a list, which must hold messages \{"role"'):
            prompt_of(given)
    with pytest.raises(DataError, match="The prompt is empty; "):
        prompt_of(" ")
    with pytest.raises(DataError, match="first and last; this one has: user, assistant"):
        prompt_of([*messages, {"role": "assistant", "content": "Hello"}])


def test_traits_may_be_json_text() -> None:
    assert parse_user({"id": 1, "traits": '{"a": 1}'}, file="f", number=1) == User("1", traits={"a": 1.0})


@pytest.mark.parametrize(
    ("row", "column", "says"),
    [
        (Preference("ann", " \n", "a", "b"), "prompt", "empty"),
        (Preference("ann", "p", "", "b"), "chosen", "empty"),
        (Preference("ann", "p", "a", "\t"), "rejected", "empty"),
        (Preference("", "p", "a", "b"), "user", "empty"),
        (Preference("ann", "p", "a", " a\n"), "rejected", "same text as chosen"),
        (Preference("anne", "p", "a", "b"), "user", "did you mean 'ann'?"),
        (Preference("zzz", "p", "a", "b"), "user", "no user has the id 'zzz'."),
        (Preference("ann", "p", "a\ud83d", "b"), "chosen", "surrogate"),
        (Preference("ann", "first", "a", "b"), "chosen", "repeats row 10"),
        (Preference("ann", "first", "b", "a"), "chosen", "contradicts row 10"),
    ],
)
def test_rows_that_can_not_be_used_are_found(row: Preference, column: str, says: str) -> None:
    first = Preference("ann", "first", "a", "b")
    problems = list(find_problems(USERS, [first, row], rows=[10, 20]))
    assert [(problem.row, problem.column) for problem in problems] == [(20, column)]
    assert says in problems[0].what


def test_the_same_pair_may_be_judged_by_another_user_and_for_another_prompt() -> None:
    rows = [Preference("ann", "p", "a", "b"), Preference("bob", "p", "b", "a"), Preference("ann", "other", "b", "a")]
    assert list(find_problems(USERS, rows)) == []
    check_dataset(USERS, rows)


def test_the_first_problem_is_told_and_the_others_are_counted() -> None:
    rows = [Preference("ann", "p", "a", "b"), *(Preference("ann", "p", "", "b") for _ in range(3))]
    with pytest.raises(
        DataError,
        match=r"^data, row 2, column 'chosen': empty.* \(2 more rows with problems: row 3, .*; row 4, .*\.\)$",
    ):
        check_dataset(USERS, rows, file="data")


def test_a_close_name_is_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr("difflib.get_close_matches", lambda name, known, **_: asked.append(known) or ["ann"])
    rows = [Preference(f"anne{number}", "p", "a", "b") for number in range(50)]
    with pytest.raises(DataError, match=r"row 1, .*'anne0' \(did you mean 'ann'\?\)\. \(49 more rows"):
        check_dataset(USERS, rows)
    assert [known for known in asked if known] == [["ann", "bob"]]
