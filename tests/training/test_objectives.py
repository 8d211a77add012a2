"""The objectives, by their equations and their gradients."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fspo.training import objectives

nats = st.floats(-50, 50, allow_nan=False)
rows = st.lists(st.tuples(nats, nats), min_size=1, max_size=6)


def column(pairs: list[tuple[float, float]], side: int) -> torch.Tensor:
    return torch.tensor([pair[side] for pair in pairs], dtype=torch.float64)


def test_margin_is_relative_to_the_reference() -> None:
    chosen, rejected = torch.tensor([-1.0]), torch.tensor([-4.0])
    assert objectives.margins(chosen, rejected).item() == 3
    assert objectives.margins(chosen, rejected, torch.tensor([-2.0]), torch.tensor([-2.5])).item() == 2.5
    assert objectives.margins(chosen, rejected, chosen, rejected).item() == 0


def test_ipo_rests_at_its_target() -> None:
    h = torch.tensor([50.0, 0.0], requires_grad=True)
    losses = objectives.ipo(h, beta=0.01)
    assert losses.tolist() == [0.0, 2500.0]
    losses.sum().backward()
    assert h.grad is not None
    assert h.grad.tolist() == [0.0, -100.0]


@given(st.lists(nats, min_size=1, max_size=6), st.floats(0.01, 2))
def test_dpo_is_the_equation(values: list[float], beta: float) -> None:
    losses = objectives.dpo(torch.tensor(values, dtype=torch.float64), beta)
    for loss, h in zip(losses.tolist(), values, strict=True):
        assert loss == pytest.approx(math.log1p(math.exp(-beta * h)), rel=1e-9, abs=1e-12)


@given(st.lists(nats, min_size=1, max_size=6), st.floats(0.01, 2), st.floats(0.0, 0.45))
def test_smoothed_labels_are_a_mixture_of_both_labels(values: list[float], beta: float, share: float) -> None:
    h = torch.tensor(values, dtype=torch.float64)
    right, wrong = objectives.dpo(h, beta), objectives.dpo(-h, beta)
    assert torch.allclose(objectives.dpo(h, beta, share), (1 - share) * right + share * wrong)
    robust = objectives.robust_dpo(h, beta, share)
    assert torch.allclose(robust, ((1 - share) * right - share * wrong) / (1 - 2 * share))
    # Over labels that are flipped that often, robust DPO is DPO on the true ones.
    flipped = objectives.robust_dpo(-h, beta, share)
    assert torch.allclose((1 - share) * robust + share * flipped, right)


def test_conservative_dpo_rests_where_its_labels_are_as_sure_as_they_are_right() -> None:
    h = torch.tensor([math.log(0.9 / 0.1) / 0.5], requires_grad=True)
    objectives.dpo(h, 0.5, 0.1).sum().backward()
    assert h.grad is not None
    assert h.grad.item() == pytest.approx(0, abs=1e-7)


def test_hinge_leaves_pairs_alone_that_are_apart() -> None:
    h = torch.tensor([-10.0, 5.0, 10.0, 11.0], requires_grad=True)
    losses = objectives.hinge(h, beta=0.1)
    assert losses.tolist() == pytest.approx([2.0, 0.5, 0.0, 0.0])
    losses.sum().backward()
    assert h.grad is not None
    assert h.grad.tolist() == pytest.approx([-0.1, -0.1, 0.0, 0.0])


@given(st.lists(nats, min_size=1, max_size=6), st.floats(0.5, 3), st.floats(0, 2))
def test_simpo_is_the_equation(values: list[float], beta: float, gamma: float) -> None:
    losses = objectives.simpo(torch.tensor(values, dtype=torch.float64), beta, gamma)
    for loss, m in zip(losses.tolist(), values, strict=True):
        assert loss == pytest.approx(math.log1p(math.exp(gamma - beta * m)), rel=1e-9, abs=1e-12)


def test_length_control_asks_less_of_a_longer_choice() -> None:
    h = torch.tensor([1.0, 1.0, 1.0])
    chosen, rejected = torch.tensor([30, 20, 10]), torch.tensor([10, 20, 30])
    controlled = objectives.length_controlled(h, chosen, rejected, beta=0.1, weight=0.02)
    assert controlled.tolist() == pytest.approx([5.0, 1.0, -3.0])
    longer, same, shorter = objectives.dpo(controlled, 0.1).tolist()
    assert longer < same < shorter
    # R-DPO as its paper writes it: -log sigmoid(beta h + a |y_w| - a |y_l|).
    assert longer == pytest.approx(math.log1p(math.exp(-(0.1 * 1.0 + 0.02 * 30 - 0.02 * 10))), rel=1e-6)


def test_pref_ft_looks_at_the_chosen_only() -> None:
    assert objectives.pref_ft(torch.tensor([-3.0, -0.5])).tolist() == [3.0, 0.5]


@given(rows)
def test_effect_and_bias_are_the_two_halves_of_both_margins(pairs: list[tuple[float, float]]) -> None:
    h, mirrored = column(pairs, 0), column(pairs, 1)
    e, b = objectives.effect(h, mirrored), objectives.bias(h, mirrored)
    assert torch.allclose(e + b, h)
    assert torch.allclose(b - e, mirrored)
    assert torch.equal(objectives.effect(mirrored, h), -e)
    assert torch.equal(objectives.bias(mirrored, h), b)


@given(rows, st.floats(0.01, 1))
def test_contrast_with_full_bias_weight_is_ipo_on_an_episode_and_its_mirror(
    pairs: list[tuple[float, float]], beta: float
) -> None:
    h, mirrored = column(pairs, 0), column(pairs, 1)
    both = (objectives.ipo(h, beta) + objectives.ipo(-mirrored, beta)) / 2
    contrast = objectives.mirrored_contrast(h, mirrored, target=1 / (2 * beta), bias_weight=1.0)
    assert torch.allclose(contrast, both)


@given(rows, nats)
def test_contrast_without_bias_weight_needs_no_reference(pairs: list[tuple[float, float]], reference: float) -> None:
    h, mirrored = column(pairs, 0), column(pairs, 1)
    moved = objectives.mirrored_contrast(h - reference, mirrored - reference, target=2.0)
    assert torch.allclose(objectives.mirrored_contrast(h, mirrored, target=2.0), moved)


def test_contrast_cannot_be_won_by_contents() -> None:
    same = torch.tensor([9.0])
    assert objectives.mirrored_contrast(same, same, target=2.0).item() == 4.0
    assert objectives.mirrored_contrast_logistic(same, same, scale=1.0).item() == pytest.approx(math.log(2))


@given(rows, st.floats(0.05, 2), st.floats(0, 1))
def test_logistic_contrast_is_the_equation(pairs: list[tuple[float, float]], scale: float, weight: float) -> None:
    losses = objectives.mirrored_contrast_logistic(column(pairs, 0), column(pairs, 1), scale=scale, bias_weight=weight)
    for loss, (h, mirrored) in zip(losses.tolist(), pairs, strict=True):
        e, b = (h - mirrored) / 2, (h + mirrored) / 2
        assert loss == pytest.approx(math.log1p(math.exp(-scale * e)) + weight * b * b, rel=1e-9, abs=1e-12)


def test_with_a_bias_weight_the_direction_is_that_of_both_margins() -> None:
    """At weight 1: the cosine of (h, h') with (c, -c), margins under the shots and under their mirror."""
    h, mirrored = torch.tensor([[3.0, 1.0, -2.0]]), torch.tensor([[-1.0, 2.0, 4.0]])
    targets = torch.tensor([[2.0, 0.5, -1.5]])
    effects, biases = objectives.effect(h, mirrored), objectives.bias(h, mirrored)
    losses = objectives.mirrored_contrast_direction(effects, targets, biases, bias_weight=1.0)
    rewards, aims = [3.0, 1.0, -2.0, -1.0, 2.0, 4.0], [2.0, 0.5, -1.5, -2.0, -0.5, 1.5]
    cosine = sum(map(math.prod, zip(rewards, aims, strict=True))) / math.hypot(*rewards) / math.hypot(*aims)
    assert losses.tolist() == pytest.approx([math.sqrt(6.5 / 3) * (1 - cosine)])
    without = objectives.mirrored_contrast_direction(effects, targets, biases)
    assert without.tolist() == objectives.mirrored_contrast_direction(effects, targets).tolist()


def test_the_direction_of_the_effects_counts_and_not_their_size() -> None:
    targets = torch.tensor([[1.0, 2.0, 1.0], [0.1, 0.2, 0.1], [0.0, 0.0, 0.0]], dtype=torch.float64)
    effects = torch.tensor([[2.0, -1.0, 0.0], [2.0, 4.0, 2.0], [1.0, 1.0, 1.0]], dtype=torch.float64)
    losses = objectives.mirrored_contrast_direction(effects, targets)
    # At right angles the cosine is 0, and the first query's targets have a root mean square of sqrt(2).
    assert losses.tolist() == pytest.approx([math.sqrt(2), 0, 0])
    assert objectives.mirrored_contrast_direction(7 * effects, targets).tolist() == pytest.approx(losses.tolist())
    assert objectives.mirrored_contrast_direction(-effects, targets)[1].item() == pytest.approx(2 * math.sqrt(0.02))
