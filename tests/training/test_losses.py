"""From log-probabilities to losses."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch

from fspo.modeling.logprobs import BranchLogprobs
from fspo.modeling.rendering import Branch, TokenizedEpisode
from fspo.training.config import TrainingConfig
from fspo.training.losses import PassScores, add_figures, figures, losses
from fspo.training.steps import StepBatch, Unit


def logprobs(rows: list[list[float]]) -> BranchLogprobs:
    sums = torch.tensor(rows, dtype=torch.float64)
    return BranchLogprobs(sums, torch.full(sums.shape, 5), sums / 2)


def test_every_two_of_more_responses_are_pulled_to_the_observers_log_odds() -> None:
    """Against the sum written out by hand: the mean over the pairs of (e - s c)^2 + w b^2."""
    plain = [[-3.0, -5.0, -4.0], [-2.0, -2.5, -7.0]]
    mirrored = [[-4.0, -4.5, -6.0], [-3.0, -1.0, -6.5]]
    targets = [[1.0, 0.5, -0.5], [2.0, 0.0, 3.0]]
    config = TrainingConfig(
        objective="mirrored-contrast", target="observer", observer_scale=1.5, responses=3, bias_weight=0.1
    )
    scores = PassScores(
        logprobs(plain), logprobs(mirrored), targets_B=torch.tensor(targets, dtype=torch.float64).flatten()
    )
    expected = []
    for row, twin, aims in zip(plain, mirrored, targets, strict=True):
        pairs = []
        for (i, j), aim in zip(itertools.combinations(range(3), 2), aims, strict=True):
            h, h_mirrored = row[i] - row[j], twin[i] - twin[j]
            pairs.append(((h - h_mirrored) / 2 - 1.5 * aim) ** 2 + 0.1 * ((h + h_mirrored) / 2) ** 2)
        expected.append(sum(pairs) / 3)
    assert losses(scores, config).tolist() == pytest.approx(expected)
    labelled = [(row[0] - row[1] - twin[0] + twin[1]) / 2 for row, twin in zip(plain, mirrored, strict=True)]
    assert figures(scores, config)["effect"] == pytest.approx(sum(labelled) / 2)


def test_two_responses_among_more_are_scored_as_if_they_were_alone() -> None:
    config = TrainingConfig(objective="mirrored-contrast", target="observer")
    alone = PassScores(logprobs([[-3.0, -5.0]]), logprobs([[-4.0, -4.5]]), targets_B=torch.tensor([1.0]))
    assert losses(alone, config).tolist() == pytest.approx([(0.75 - 1.5) ** 2])


def test_the_likelihood_is_that_of_the_two_labelled_responses_only() -> None:
    """A third response to a query is compared, but neither person chose it."""
    config = TrainingConfig(objective="mirrored-contrast", target="observer", responses=3, pref_ft_weight=2.0)
    found = []
    for other in (-4.0, -400.0):
        scores = PassScores(logprobs([[-3.0, -5.0, other]]), logprobs([[-4.0, -4.5, other]]), targets_B=torch.zeros(3))
        found.append(figures(scores, config)["nll"])
    assert found == pytest.approx([(3.0 + 4.5) / 2 / 5] * 2)


def test_the_direction_with_a_bias_weight_measures_the_bias_against_the_reference() -> None:
    """A policy whose margins differ from the reference's by the observer's log-odds alone has no loss."""
    odds, reference = torch.tensor([1.0, 3.0, 2.0]), torch.tensor([10.0, -20.0, -30.0])  # pairs 01, 02, 12
    config = TrainingConfig(
        objective="mirrored-contrast", target="observer", responses=3, contrast="direction", bias_weight=1.0
    )
    plain, mirrored = [[0.0, -11.0, 17.0]], [[0.0, -9.0, 23.0]]
    against = {"targets_B": odds, "reference_B": reference, "reference_mirrored_B": reference}
    assert losses(PassScores(logprobs(plain), logprobs(mirrored), **against), config).tolist() == pytest.approx([0.0])
    biased = losses(PassScores(logprobs([[0.0, -16.0, 12.0]]), logprobs([[0.0, -14.0, 18.0]]), **against), config)
    assert biased.item() > 0.1


def test_the_direction_is_that_of_each_querys_pairs() -> None:
    """Two queries with three pairs each: one follows the observer, the other does the opposite."""
    config = TrainingConfig(
        objective="mirrored-contrast", target="observer", observer_scale=1.0, responses=3, contrast="direction"
    )
    plain, mirrored = [[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]], [[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]]
    targets = torch.tensor([1.0, 2.0, 1.0] * 2, dtype=torch.float64)
    scores = PassScores(logprobs(plain), logprobs(mirrored), targets_B=targets)
    assert losses(scores, config).tolist() == pytest.approx([0, 2 * 2**0.5])


@pytest.mark.parametrize("objective", ["dpo", "simpo"])
def test_a_label_that_may_be_wrong_is_smoothed_alone(objective: str) -> None:
    """Against the formula written out by hand: -(1 - s) log sigmoid(r) - s log sigmoid(-r)."""
    config = TrainingConfig(objective=objective, beta=0.5, gamma=0.0, label_smoothing=0.1)
    scores = PassScores(logprobs([[-3.0, -5.0], [-3.0, -5.0]]), noise_B=torch.tensor([0.1, 0.4], dtype=torch.float64))
    reward = 0.5 * 2.0 / (5 if objective == "simpo" else 1)
    right, wrong = -math.log(1 / (1 + math.exp(-reward))), -math.log(1 / (1 + math.exp(reward)))
    assert losses(scores, config).tolist() == pytest.approx([0.9 * right + 0.1 * wrong, 0.6 * right + 0.4 * wrong])
    assert losses(replace(scores, noise_B=None), config).tolist() == pytest.approx([0.9 * right + 0.1 * wrong] * 2)


def test_figures_of_weighted_pairs_are_the_same_however_a_step_is_split() -> None:
    config = TrainingConfig(objective="simpo")
    rows, weights = [[-1.0, -11.0], [-3.0, -3.0]], [0.9, 0.1]
    pair = TokenizedEpisode((), (0,), (Branch((), ((), ()), 0, 0, 0),))
    units = [Unit(number, "u", pair, weight=weight) for number, weight in enumerate(weights)]
    whole = figures(PassScores(logprobs(rows), weights_Q=torch.tensor(weights)), config)
    assert whole == pytest.approx({"nll": (0.9 * 1 + 0.1 * 3) / 5, "margin": 0.9 * 10 / 5, "margin_accuracy": 0.95})
    sums: dict[str, float] = {}
    for unit, row, weight in zip(units, rows, weights, strict=True):
        own = figures(PassScores(logprobs([row]), weights_Q=torch.tensor([weight])), config)
        add_figures(sums, own, [unit], StepBatch((tuple(units),)))
    assert sums == pytest.approx(whole)
