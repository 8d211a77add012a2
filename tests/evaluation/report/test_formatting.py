"""Numbers in sentences: one minus, no zero below zero, points for differences."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fspo.evaluation.report.formatting import (
    amount,
    environment,
    join_names,
    number,
    with_interval,
)
from fspo.evaluation.statistics.intervals import Estimate

MINUS = "\N{MINUS SIGN}"


@pytest.mark.parametrize(
    ("value", "decimals", "plus", "said"),
    [
        (-0.04, 1, False, "0.0"),
        (-0.004, 2, False, "0.00"),
        (-0.04, 1, True, "0.0"),
        (0.04, 1, True, "0.0"),
        (1.26, 1, True, "+1.3"),
        (-1.26, 1, True, f"{MINUS}1.3"),
        (99.96, 1, False, "100.0"),
    ],
)
def test_a_number(value: float, decimals: int, plus: bool, said: str) -> None:
    assert number(value, decimals, plus=plus) == said


@given(st.floats(-1000, 1000), st.integers(0, 4), st.booleans())
def test_what_is_written_is_the_number(value: float, decimals: int, plus: bool) -> None:
    said = number(value, decimals, plus=plus)
    assert "-" not in said
    assert float(said.replace(MINUS, "-")) == pytest.approx(value, abs=0.5 * 10**-decimals + 1e-9)
    assert not (said.startswith((MINUS, "+")) and float(said.strip(MINUS + "+")) == 0)


def test_shares_and_differences() -> None:
    found = Estimate(-0.12, -0.2, 0.04, 9, 90)
    assert amount(0.771) == "77.1%"
    assert amount(-0.12, " points") == f"{MINUS}12.0 points"
    assert with_interval(Estimate(0.771, None, None, 2, 9)) == "77.1%"
    assert with_interval(found, " points") == f"{MINUS}12.0 points [{MINUS}20.0, 4.0]"
    assert with_interval(found, " nats") == f"{MINUS}0.12 nats [{MINUS}0.20, 0.04]"
    assert [join_names(["a"]), join_names(["a", "b"]), join_names(["a", "b", "c"])] == ["a", "a and b", "a, b and c"]


def test_cells_repeat_the_title_of_their_column_as_text() -> None:
    table = (
        '<table><thead><tr><th scope="col">of</th><th scope="col"><b>&lt;x&gt; "y"</b></th></tr></thead>'
        "<tbody><tr><th>a</th><td>1</td></tr></tbody></table>"
    )
    labelled = environment().from_string("{{ table | safe | labelled }}").render(table=table)
    assert labelled.endswith(
        '<tbody><tr><th data-label="of">a</th><td data-label="&lt;x&gt; &#34;y&#34;">1</td></tr></tbody></table>'
    )


def test_what_stands_between_backticks_is_code_and_the_rest_text() -> None:
    code = environment().from_string("{{ text | code }}").render(text="`a<b` and `c`, not <i> `")
    assert code == "<code>a&lt;b</code> and <code>c</code>, not &lt;i&gt; `"


def test_a_long_text_is_shown_in_two_parts_that_are_the_whole() -> None:
    opening = environment().filters["opening"]
    text = "word " * 100
    start, rest = opening(text, 100)
    assert start + rest == text
    assert 90 < len(start) <= 100
    assert opening("short", 100) == ("short", "")
    assert opening("x" * 500, 100) == ("x" * 500, "")  # no place to cut it
