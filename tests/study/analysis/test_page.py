"""The page and the tables hold the findings, and nothing in them is loaded or obeyed."""

from __future__ import annotations

import io
import random
import re
from pathlib import Path

import pytest
from rich.console import Console

from fspo.study.analysis.findings import StudyFindings, analyse
from fspo.study.analysis.page import write_page
from fspo.study.analysis.tables import diagnostics_table, effects_table, plan_tables, win_rate_table
from fspo.study.analysis.wording import NO_RESULT, headline
from fspo.study.power import Assumptions, plan_study
from tests.study.made_records import PAIR, attention, attentive, item, person, study
from tests.study.test_power import planned_study


def _findings(rate: float = 0.8) -> StudyFindings:
    chance = random.Random(0)
    names = [f"p{n}" for n in range(12)]
    items = [one for name in names for one in attentive(name, chance, rate, labels=4)]
    traits = {"first_traits": {"<b>": "1"}, "second_traits": {"<b>": "2"}}
    items = [one.model_copy(update=traits) if one.stage == "label" else one for one in items]
    items += [attention(name, 12, "first", "second" if name == "p3" else "first") for name in names]
    return analyse(study(names, items), pairs=[PAIR])


def test_the_page_is_whole_and_loads_nothing(tmp_path: Path) -> None:
    found = _findings()
    out = write_page(found, tmp_path / "report.html", title="Which <answer>?", registered="As registered: abc123.")
    page = out.read_text()
    assert page.count("<svg") == 8  # win rates, people, effects and tastes, each wide and narrow
    assert "Which &lt;answer&gt;?" in page and "<answer>" not in page and "abc123" in page
    assert "<b>" not in page
    assert not re.findall(r'(?:src|href)="(?!#|data:)', page) and "<script" not in page
    assert "failed attention items" in page
    (rate,) = found.results.win_rates
    assert f"{rate.estimate.value * 100:.1f}" in page


def test_a_study_without_votes_has_a_page(tmp_path: Path) -> None:
    found = analyse(study([person("a", finished=None)], [item("a", 1, choice=None)]))
    assert NO_RESULT in write_page(found, tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("rate", "sentence"), [(0.9, "more than chance"), (0.5, "not distinguishable"), (0.1, "less than chance")]
)
def test_the_headline_says_what_the_test_says(rate: float, sentence: str) -> None:
    (found,) = _findings(rate).results.win_rates
    assert sentence in headline(found)
    assert ("(p " in headline(found)) == (rate >= 0.5)  # p is one-sided, against more than one half


def test_two_people_have_a_headline_without_a_p_value() -> None:
    (found,) = analyse(study(["a", "b"], [item("a", 1), item("b", 1)]), pairs=[PAIR]).results.win_rates
    assert "at least 3 are needed" in headline(found) and "p " not in headline(found).split("(")[0]


def test_tables_show_both_analyses_and_the_plan() -> None:
    console, found = Console(width=200, record=True, file=io.StringIO()), _findings()
    console.print(win_rate_table(found), effects_table(found.results), diagnostics_table(found))
    for table in plan_tables(plan_study(planned_study(), Assumptions())):
        console.print(table)
    text = console.export_text()
    for rate in (*found.results.win_rates, *found.everybody.win_rates):
        assert f"{rate.estimate.value * 100:.1f}" in text
    assert "11 of 12" in text and "shots 2" in text and "chose <b> 1" in text
    assert "true win rate" in text and "60%" in text
