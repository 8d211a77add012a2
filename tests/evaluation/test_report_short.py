"""The sentences in front of the page: no order without ranges, no figure without its interval."""

from __future__ import annotations

from fspo.evaluation.report.short import in_short
from fspo.evaluation.report.standing import Paired
from fspo.evaluation.statistics import Comparison, Estimate

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


def paired(difference: float, adjusted: float | None) -> Paired:
    return Paired(Comparison(Estimate(difference, None, None, 30, 90), adjusted, adjusted), None)


def test_the_correction_is_told_of_what_it_decided_alone() -> None:
    rows = {"a": paired(0.2, 0.001), "b": paired(0.1, 0.01), "c": paired(-0.2, 0.02), "d": paired(0.02, 0.4)}
    rows["e"] = paired(0.3, None)
    sections = NOTHING | {"accuracy_rank": {"order": ["fspo", *rows]}, "paired": rows}
    [said] = in_short({}, None, sections, "fspo")
    assert said == (
        "In reward accuracy on the same pairs, fspo is better than a and b and worse than c (p below 0.05 after Holm's "
        "correction); it can't be told from d; it has too few users to be compared with e."
    )
    for name, word in (("d", "can't be told from d."), ("e", "has too few users to be compared with e.")):
        [said] = in_short({}, None, sections | {"paired": {name: rows[name]}}, "fspo")
        assert said == f"In reward accuracy on the same pairs, fspo {word}"


def test_labels_and_users_are_each_told_by_the_reward_they_are_of() -> None:
    row = {"label_flip_rate": Estimate(0.625, 0.557, 0.688, 30, 240)}
    row["user_swap_drop"] = Estimate(0.325, 0.216, 0.434, 30, 240)
    details = {"rewards": {"fspo": ["antisymmetric", "reference", "likelihood"], "few-shot": ["reference"]}}
    [said] = in_short({"fspo": row}, None, NOTHING, "fspo", details)
    assert said == (
        "By the reference reward, flipping every label in the context changes 62.5 % of the decisions (55.7 to 68.8); "
        "by the antisymmetric one, another user's shots cost 32.5 points of accuracy (21.6 to 43.4)."
    )
    [same] = in_short({"few-shot": row}, None, NOTHING, "few-shot", details)
    assert same.startswith("By the reference reward, flipping") and "one, another" not in same


def test_one_is_and_more_are() -> None:
    for served, users, said in ((1, 8, "Of 8 users, 1 is served"), (2, 8, "Of 8 users, 2 are"), (0, 1, "Of 1 user, 0")):
        per_user = {"users": users, "at_chance": served}
        assert said in in_short({}, None, NOTHING | {"per_user": per_user}, "fspo")[0]


def test_users_who_are_mostly_alike_are_told() -> None:
    row, ceiling = {"reward_accuracy": Estimate(0.5, 0.4, 0.6, 8, 24)}, Estimate(0.96, 0.8, 1.0, 8, 24)
    [alike] = in_short({"fspo": row}, ceiling, NOTHING, "fspo", unshown=Estimate(0.94, 0.7, 1.0, 8, 16))
    assert alike.endswith("It ranks 94.0 % right without any shot: so far these users are alike.")
    [differing] = in_short({"fspo": row}, ceiling, NOTHING, "fspo", unshown=Estimate(0.5, 0.3, 0.7, 8, 16))
    assert "without any shot" not in differing
