"""Agreement of judges: the share, and kappa beyond chance."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fspo.evaluation.judges.agreement import agreement, cohens_kappa

WORDS = st.lists(st.sampled_from(["win", "loss", "tie"]), min_size=1, max_size=30)


def test_the_textbook_example() -> None:
    """20 both yes, 15 both no, 5 and 10 apart: share 0.7, chance 0.5, kappa 0.4."""
    pairs = [("yes", "yes")] * 20 + [("yes", "no")] * 5 + [("no", "yes")] * 10 + [("no", "no")] * 15
    first, second = ({n: pair[side] for n, pair in enumerate(pairs)} for side in (0, 1))
    assert cohens_kappa(first, second) == pytest.approx(0.4)


@given(WORDS)
def test_a_judge_agrees_with_itself(words: list[str]) -> None:
    said = dict(enumerate(words))
    kappa = cohens_kappa(said, said)
    assert kappa == pytest.approx(1.0) if len(set(words)) > 1 else kappa is None


@given(WORDS, WORDS)
def test_kappa_is_symmetric_and_at_most_the_share(one: list[str], other: list[str]) -> None:
    first, second = dict(enumerate(one)), dict(enumerate(other))
    kappa = cohens_kappa(first, second)
    assert kappa == cohens_kappa(second, first) or kappa == pytest.approx(cohens_kappa(second, first))
    shared = min(len(one), len(other))
    if kappa is not None:
        assert kappa <= sum(first[n] == second[n] for n in range(shared)) / shared + 1e-12


def test_only_what_both_judged_counts_and_users_are_the_clusters() -> None:
    first = {("fspo", (user, f"{user}/{n}")): "win" for user in "abc" for n in range(2)}
    second = {key: "win" if key[1][0] != "c" else "loss" for key in first} | {("fspo", ("d", "d/0")): "win"}
    share = agreement(first, second)
    assert share is not None
    assert share.value == pytest.approx(2 / 3)
    assert (share.users, share.items) == (3, 6)
    assert agreement(first, {}) is None
    assert cohens_kappa(first, {}) is None
