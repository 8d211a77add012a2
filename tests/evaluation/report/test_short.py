"""The figures in front of the page: no rank without its limits, no figure without its interval."""

from __future__ import annotations

from fspo.evaluation.statistics.comparing import Comparison
from fspo.evaluation.statistics.intervals import Estimate
from tests.evaluation.report.rendering import in_short

NOTHING: dict[str, dict[str, object]] = {"paired": {}, "accuracy_rank": {}, "per_user": {}, "answers_rank": {}}


def test_the_rank_by_accuracy_is_shown_where_nothing_is_paired() -> None:
    ranked = NOTHING | {"accuracy_rank": {"order": ["few-shot", "fspo", "base"]}}
    assert in_short({}, {}, ranked, "fspo") == {"rank by reward accuracy": "2 of 3"}
    assert in_short({}, {}, NOTHING, "fspo") == {}


def test_figures_come_with_their_intervals_or_say_that_there_are_none() -> None:
    row = {
        "label_flip_rate": Estimate(0.6, 0.5, 0.7, 9, 90),
        "user_swap_drop": Estimate(-0.02, -0.1, 0.06, 9, 90),
        "tax_general": Estimate(0.25, None, None, 1, 4),
    }
    assert list(in_short({"fspo": row}, {}, NOTHING, "fspo").values()) == [
        "60.0% (50.0 to 70.0)",
        "\N{MINUS SIGN}2.0 points (\N{MINUS SIGN}10.0 to 6.0)",
        "25.0 points (too few users for an interval)",
    ]


def test_a_rank_without_its_limits_is_not_shown() -> None:
    rows = [{"method": "fspo", "rank": 1, "ranks": ""}, {"method": "base", "rank": 2, "ranks": ""}]
    assert in_short({}, {}, NOTHING | {"answers_rank": {"rows": rows}}, "fspo") == {}
    rows[0]["ranks"] = "1 to 2"
    [shown] = in_short({}, {}, NOTHING | {"answers_rank": {"rows": rows}}, "fspo").values()
    assert shown == "1 of 2 (95% limits: 1 to 2)"


def paired(difference: float, adjusted: float | None) -> Comparison:
    return Comparison(Estimate(difference, None, None, 30, 90), adjusted, adjusted)


def test_methods_are_grouped_by_how_they_compare() -> None:
    rows = {"a": paired(0.2, 0.001), "b": paired(0.1, 0.01), "c": paired(-0.2, 0.02), "d": paired(0.02, 0.4)}
    rows["e"] = paired(0.3, None)
    sections = NOTHING | {"accuracy_rank": {"order": ["fspo", *rows]}, "paired": rows}
    assert in_short({}, {}, sections, "fspo") == {
        "more accurate than": "a and b",
        "less accurate than": "c",
        "not distinguishable in accuracy from": "d",
        "too few users to compare with": "e",
    }


def test_label_flips_and_swaps_name_the_rewards_they_are_of() -> None:
    row = {"label_flip_rate": Estimate(0.625, 0.557, 0.688, 30, 240)}
    row["user_swap_drop"] = Estimate(0.325, 0.216, 0.434, 30, 240)
    details = {"rewards": {"fspo": ["antisymmetric", "reference", "likelihood"], "few-shot": ["reference"]}}
    flips, swaps = in_short({"fspo": row}, {}, NOTHING, "fspo", details).values()
    assert flips.endswith(", reference reward") and swaps.endswith(", antisymmetric reward")
    flips, swaps = in_short({"few-shot": row}, {}, NOTHING, "few-shot", details).values()
    assert flips.endswith(", reference reward") and swaps.endswith(", reference reward")


def test_users_at_chance_are_counted_and_few_pairs_are_named() -> None:
    per_user = {"users": 8, "at_chance": 1}
    assert list(in_short({}, {}, NOTHING | {"per_user": per_user}, "fspo").values()) == ["1 of 8"]
    [few] = in_short({}, {}, NOTHING | {"per_user": per_user | {"pairs": 3}}, "fspo").values()
    assert few.startswith("1 of 8, with 3 pairs each")
    [many] = in_short({}, {}, NOTHING | {"per_user": per_user | {"pairs": 30}}, "fspo").values()
    assert many == "1 of 8"


def test_users_who_mostly_agree_are_noted() -> None:
    row = {"reward_accuracy": Estimate(0.5, 0.4, 0.6, 8, 24)}
    observer = {
        "reward_accuracy": Estimate(0.96, 0.8, 1.0, 8, 24),
        "reward_accuracy@0": Estimate(0.94, 0.7, 1.0, 8, 16),
    }
    left, alike = in_short({"fspo": row}, observer, NOTHING, "fspo").values()
    assert left == "96.0%, 46.0 points higher"
    assert alike.startswith("94.0%")
    observer["reward_accuracy@0"] = Estimate(0.5, 0.3, 0.7, 8, 16)
    assert len(in_short({"fspo": row}, observer, NOTHING, "fspo")) == 1
