"""Calling something in the place of a module's forward, as wrapped and sharded models need."""

from __future__ import annotations

import pytest
import torch

from fspo.modeling import logprobs
from fspo.modeling.lm_head import in_place_of_forward
from fspo.modeling.logprobs import branch_logprobs
from fspo.modeling.rendering import Branch, TokenizedEpisode
from tests.modeling.models import build

EPISODE = TokenizedEpisode((1, 2, 3), (3,), (Branch((4,), ((5, 6, 7), (8, 9)), 3, 0, 0),))


class Calls:
    """Counts what a hook would gather weights for."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.count = 0
        module.register_forward_pre_hook(self)

    def __call__(self, *_: object) -> None:
        self.count += 1


def test_hooks_run_once_around_the_function_and_the_forward_comes_back() -> None:
    layer = torch.nn.Linear(2, 2)
    calls = Calls(layer)
    inputs = torch.ones(1, 2)
    assert torch.equal(in_place_of_forward(layer, lambda x: layer.forward(x) + 1, inputs), layer.forward(inputs) + 1)
    assert calls.count == 1
    assert "forward" not in vars(layer)
    assert torch.equal(layer(inputs), layer.forward(inputs))


@pytest.mark.parametrize("own", [True, False])
def test_the_forward_comes_back_after_an_error(own: bool) -> None:
    layer = torch.nn.Linear(2, 2)
    Calls(layer)
    mine = layer.forward
    if own:  # as accelerate replaces it for mixed precision
        layer.forward = mine  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        in_place_of_forward(layer, lambda x: x / (1 // 0), torch.ones(1, 2))
    assert ("forward" in vars(layer)) == own
    assert layer.forward == mine


@pytest.mark.parametrize("lora", [True, False])
def test_a_pass_is_one_call_of_the_model_and_one_of_its_head(monkeypatch: pytest.MonkeyPatch, lora: bool) -> None:
    model = build("llama", lora=lora)
    [plain] = branch_logprobs(model, [EPISODE])
    monkeypatch.setattr(logprobs, "_LOGITS_BUDGET", 61 * 2)
    root, head = Calls(model), Calls(model.get_output_embeddings())
    [hooked] = branch_logprobs(model, [EPISODE])
    assert (root.count, head.count) == (1, 1)
    torch.testing.assert_close(hooked.sums, plain.sums)
    hooked.sums.sum().backward()
    assert (root.count, head.count) == (1, 1)
