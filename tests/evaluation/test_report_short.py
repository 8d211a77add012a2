"""The sentences in front of the page: no order without ranges, no figure without its interval."""

from __future__ import annotations

from fspo.evaluation.report.short import in_short
from fspo.evaluation.statistics import Estimate

NOTHING: dict[str, dict[str, object]] = {"paired": {}, "accuracy_rank": {}, "per_user": {}, "answers_rank": {}}


def test_who_stands_where_is_said_from_both_sides() -> None:
    ranked = NOTHING | {"accuracy_rank": {"order": ["few-shot", "fspo", "base"]}}
    [said] = in_short({}, None, ranked, "fspo")
    assert said == "In reward accuracy fspo stands 2 of 3, after few-shot and before base."
    [first] = in_short({}, None, ranked, "few-shot")
    assert first == "In reward accuracy few-shot stands 1 of 3, before fspo."


def test_figures_come_with_their_intervals_or_without_any() -> None:
    row = {
        "label_flip_rate": Estimate(0.6, 0.5, 0.7, 9, 90),
        "user_swap_drop": Estimate(-0.02, -0.1, 0.06, 9, 90),
        "tax_general": Estimate(0.25, None, None, 1, 4),
    }
    labels, cost = in_short({"fspo": row}, None, NOTHING, "fspo")
    assert "changes 60.0 % of the decisions (50.0 to 70.0)" in labels
    assert "bring 2.0 points of accuracy (\N{MINUS SIGN}6.0 to 10.0)" in labels
    assert "25.0 points of general instructions followed (too few for an interval)" in cost


def test_an_order_without_ranges_is_none() -> None:
    rows = [{"method": "fspo", "rank": 1, "ranks": ""}, {"method": "base", "rank": 2, "ranks": ""}]
    assert in_short({}, None, NOTHING | {"answers_rank": {"rows": rows}}, "fspo") == []
    rows[0]["ranks"] = "1 to 2"
    [said] = in_short({}, None, NOTHING | {"answers_rank": {"rows": rows}}, "fspo")
    assert "between 1 and 2" in said
