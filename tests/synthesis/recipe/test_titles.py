"""One title under two kinds: one question must not be about two works."""

from __future__ import annotations

from pathlib import Path

import pytest

from fspo.errors import DataError
from fspo.synthesis.recipe.domain import domain_names, load_recipe_domain
from tests.synthesis.recipe.helpers import write_domain

TITLES = "film:\n- Dune\n- Heat\nbook:\n- Emma\n- 'Dune'\n"
NAMED = "- Is the {kind} {title} good?\n"


def test_a_question_that_would_be_about_two_works_is_refused_by_file_and_line(tmp_path: Path) -> None:
    questions = NAMED + "- Would you recommend {title}?\n"
    folder = write_domain(tmp_path / "mine", titles=TITLES, questions=questions)
    with pytest.raises(DataError, match=r"titles\.yaml, line [26]: 'Dune' is under .*name \{kind\} in all questions"):
        load_recipe_domain(str(folder))


def test_a_title_may_be_under_two_kinds_where_all_questions_name_the_kind(tmp_path: Path) -> None:
    domain = load_recipe_domain(str(write_domain(tmp_path / "mine", titles=TITLES, questions=NAMED)))
    assert {seed.unit for seed in domain.seeds} == {"film/Dune", "film/Heat", "book/Emma", "book/Dune"}


def test_years_are_titles_too(tmp_path: Path) -> None:
    folder = write_domain(
        tmp_path / "mine", titles="film: [1917, Heat, Up]\nbook: [1917]\n", questions="- How is {title}?\n"
    )
    with pytest.raises(DataError, match=r"titles\.yaml, line [12]: '1917' is under"):
        load_recipe_domain(str(folder))


@pytest.mark.parametrize("name", domain_names())
def test_the_domains_of_the_package_have_none(name: str) -> None:
    units: dict[str, str] = {}
    for seed in load_recipe_domain(name).seeds:
        assert units.setdefault(seed.text, seed.unit) == seed.unit
