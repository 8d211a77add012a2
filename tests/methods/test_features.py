"""Features: centred, and white within questions."""

from __future__ import annotations

import torch

from fspo.methods.features import FeatureSpace

QUESTIONS = [f"q{number}" for number in range(40) for _ in range(5)]


def embeddings() -> torch.Tensor:
    """Responses that differ in two of four directions, and questions that differ in a third one."""
    generator = torch.Generator().manual_seed(0)
    own = torch.randn(200, 4, generator=generator) * torch.tensor([5.0, 0.1, 0.0, 0.0])
    of_question = torch.randn(40, generator=generator).repeat_interleave(5) * 100
    own[:, 2] = of_question
    return own + 7


def test_differences_within_questions_are_white() -> None:
    found = FeatureSpace.fit(embeddings(), QUESTIONS, 2)(embeddings())
    within = found.reshape(40, 5, 2)
    within = (within - within.mean(1, keepdim=True)).reshape(200, 2)
    covariance = within.T @ within / 160
    assert torch.allclose(covariance[0, 0], torch.tensor(1.0), atol=0.01)
    assert torch.allclose(covariance[0, 1], torch.tensor(0.0), atol=0.01)
    assert float(found.mean(0).abs().max()) < 1e-2


def test_what_a_question_shares_is_no_feature() -> None:
    space = FeatureSpace.fit(embeddings(), QUESTIONS, 2)
    moved = embeddings() + torch.tensor([0.0, 0.0, 50.0, 0.0])
    assert torch.allclose(space(moved), space(embeddings()), atol=1e-2)


def test_there_are_no_more_features_than_directions() -> None:
    assert FeatureSpace.fit(embeddings(), QUESTIONS, 64).projection.shape == (4, 4)
    assert torch.isfinite(FeatureSpace.fit(torch.ones(200, 4), QUESTIONS, 2)(embeddings())).all()
