"""Steering by the mean difference of hidden states."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from fspo.errors import ConfigError
from fspo.methods.adaptation import Adaptation, UserState
from fspo.methods.policies.steering import Steering, added_to, steering_vector
from fspo.modeling.logprobs import branch_logprobs
from tests.methods.text_worlds import accuracy, adaptation, by_prompt, likes, rewards, users

STEADY = users([likes(warm) for warm in (True, False) * 4], shots=8, queries=4)
CHANGING = users([by_prompt(warm) for warm in (True, False) * 4], shots=8, queries=4)


@pytest.fixture(scope="module")
def steering(tiny_model_path: Path) -> Adaptation:
    return adaptation(Steering, tiny_model_path, "none", strength=4.0)


def test_the_vector_is_the_mean_difference() -> None:
    chosen, rejected = torch.tensor([[3.0, 0.0], [1.0, 4.0]]), torch.tensor([[0.0, 4.0], [2.0, 0.0]])
    assert steering_vector(chosen, rejected).tolist() == [1.0, 0.0]
    # The states are 3, sqrt(17), 4 and 2 long.
    assert steering_vector(chosen, rejected, scaled=True).tolist() == pytest.approx([(3 + 17**0.5 + 4 + 2) / 4, 0.0])
    assert steering_vector(chosen, chosen, scaled=True).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("wrap", [lambda states: states, lambda states: (states, "cache")])
def test_it_is_added_to_what_a_block_gives(wrap: object) -> None:
    class Block(nn.Module):
        def forward(self, states: torch.Tensor) -> object:
            return wrap(states)  # type: ignore[operator]

    block, states = Block(), torch.zeros(1, 2, 3)
    with added_to(block, torch.tensor([1.0, 2.0, 3.0])):
        given = block(states)
    assert (given[0] if isinstance(given, tuple) else given).tolist() == [[[1.0, 2.0, 3.0]] * 2]
    assert torch.equal(block(states)[0] if isinstance(given, tuple) else block(states), states)


def test_it_follows_a_steady_taste_and_the_labels(steering: Adaptation) -> None:
    assert accuracy(steering, STEADY) > 0.9
    assert accuracy(steering, STEADY, flipped=True) < 0.1


def test_it_can_not_follow_a_taste_that_changes_with_the_prompt(steering: Adaptation) -> None:
    assert 0.25 < accuracy(steering, CHANGING) < 0.75


def test_mirrored_shots_give_the_opposite_vector(steering: Adaptation) -> None:
    shots = STEADY[0].shots
    vector, mirrored = (steering.state(own).tensors["vector"] for own in (shots, [shot.swap() for shot in shots]))
    torch.testing.assert_close(vector, -mirrored)


def test_an_unknown_user_and_a_strength_of_0_leave_the_model_as_it_is(tiny_model_path: Path) -> None:
    still = adaptation(Steering, tiny_model_path, "none", strength=0.0)
    assert rewards(still, STEADY[:1]).abs().max() < 1e-5
    assert still.state(()) == UserState()
    bare = STEADY[0].first_shots(0)
    assert rewards(adaptation(Steering, tiny_model_path, "none"), [bare]).abs().max() == 0


def test_the_reward_grows_with_the_strength(tiny_model_path: Path) -> None:
    weak, strong = (
        rewards(adaptation(Steering, tiny_model_path, "none", strength=a), STEADY).mean() for a in (0.01, 0.02)
    )
    assert float(strong / weak) == pytest.approx(2, rel=0.05)  # linear for small strengths


def test_a_vector_costs_a_user_one_state(steering: Adaptation) -> None:
    state = steering.state(STEADY[0].shots)
    assert (state.numbers, state.bytes) == (32, 128)


def test_the_last_block_can_not_be_steered(tiny_model_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"block 2, but the model has 2 blocks.*steering.layer to at most 1"):
        adaptation(Steering, tiny_model_path, "none", layer=2)


def test_the_model_is_left_as_it_was(steering: Adaptation) -> None:
    shown = steering.renderer.render(STEADY[0])
    with torch.no_grad():
        before = branch_logprobs(steering.model, [shown])[0].sums
        with steering.for_user(STEADY[0].shots) as user:
            assert not torch.equal(branch_logprobs(user.model, [shown])[0].sums, before)
        assert torch.equal(branch_logprobs(steering.model, [shown])[0].sums, before)
