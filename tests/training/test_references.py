"""What a policy is measured against."""

from __future__ import annotations

import torch

from fspo.training.references import FrozenReference


def test_a_frozen_reference_is_not_trained_and_drops_nothing_out() -> None:
    own = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Dropout(0.9)).train()

    with FrozenReference(own, torch.nn.Linear(2, 2))() as reference:
        first, second = (reference(torch.ones(1, 8)) for _ in range(2))

    assert torch.equal(first, second)
    assert not first.requires_grad
