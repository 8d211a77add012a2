"""Values by item: the estimate, each user's own figure, and what is said where there is no interval."""

from __future__ import annotations

import pytest

from fspo.evaluation.artifacts import UserMean
from fspo.evaluation.metrics.table import Column, estimates, missing_interval_note, per_user

ITEMS = {("ann", "1"): 1.0, ("ann", "2"): 0.0, ("bob", "3"): 1.0, ("cid", "4"): 0.5}


def test_a_figure_for_all_and_one_for_each() -> None:
    measured = {"x": Column(ITEMS), "nothing": Column({})}
    assert estimates(measured)["x"].value == pytest.approx(2.5 / 4)
    assert set(estimates(measured)) == set(per_user(measured)) == {"x"}
    assert per_user(measured)["x"]["ann"] == UserMean(value=0.5, items=2)


def test_differences_are_of_the_items_both_have() -> None:
    other = {("ann", "1"): 0.0, ("bob", "3"): 1.0, ("dee", "5"): 1.0}
    assert (Column(ITEMS) - Column(other)).of == {("ann", "1"): 1.0, ("bob", "3"): 0.0}


def test_too_few_users_are_told_and_have_no_interval() -> None:
    few = Column({item: value for item, value in ITEMS.items() if item[0] != "cid"}).estimate()
    enough = Column(ITEMS).estimate()
    assert few is not None
    assert enough is not None
    assert (few.low, few.high) == (None, None)
    assert enough.low is not None
    assert "2 users, at least 3 are needed" in missing_interval_note([("few", few), ("enough", enough)])
    assert missing_interval_note([("enough", enough)]) == ""
    many = missing_interval_note((name, few) for name in ("one", "two", "three", "four", "one"))
    assert many.endswith("are needed (one, two, three and 1 more).")
