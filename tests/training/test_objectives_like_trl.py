"""Objectives equal TRL's on the same batch, loss and gradients, once the reduction is accounted for."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fspo.modeling.logprobs import BranchLogprobs
from fspo.training import objectives
from fspo.training.config import TrainingConfig
from fspo.training.losses import PassScores, losses

pytest.importorskip("trl")
pytest.importorskip("datasets")

ROWS = [
    {"prompt_ids": [5, 9, 17, 40], "chosen_ids": [21, 22, 23], "rejected_ids": [30, 31, 32, 33, 34, 2]},
    {"prompt_ids": [8, 44], "chosen_ids": [60, 61, 62, 63, 2], "rejected_ids": [70, 2]},
    {"prompt_ids": [90, 3, 11], "chosen_ids": [12, 13], "rejected_ids": [14, 15, 16, 2]},
]


def trl_trainer(folder: Path, loss: str, out: Path, **settings: Any) -> Any:
    from datasets import Dataset
    from transformers import AutoTokenizer, LlamaForCausalLM
    from trl import DPOConfig, DPOTrainer

    model = LlamaForCausalLM.from_pretrained(folder)
    reference = perturbed(model)
    arguments = DPOConfig(
        output_dir=str(out),
        loss_type=[loss],
        max_length=None,
        per_device_train_batch_size=len(ROWS),
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        **settings,
    )
    text = {"prompt": ["a", "b"], "chosen": [" c", " d"], "rejected": [" e", " f"]}
    return DPOTrainer(
        model=model,
        ref_model=reference,
        args=arguments,
        train_dataset=Dataset.from_dict(text),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )


def perturbed(model: torch.nn.Module) -> Any:
    """A reference that differs from the policy, so that margins are not zero."""
    reference = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in reference.parameters():
            weight.add_(0.02 * torch.randn(weight.shape, generator=generator))
    return reference


def naive_sums(model: torch.nn.Module, side: str) -> torch.Tensor:
    sums = []
    for row in ROWS:
        ids = torch.tensor([row["prompt_ids"] + row[side]])
        logps = model(input_ids=ids).logits[0, :-1].float().log_softmax(-1)
        start = len(row["prompt_ids"]) - 1
        sums.append(logps[start:].gather(1, ids[0, 1 + start :, None]).sum())
    return torch.stack(sums)


def naive_logprobs(model: torch.nn.Module) -> BranchLogprobs:
    lengths = torch.tensor([[len(row["chosen_ids"]), len(row["rejected_ids"])] for row in ROWS])
    sums = torch.stack([naive_sums(model, "chosen_ids"), naive_sums(model, "rejected_ids")], 1)
    return BranchLogprobs(sums, lengths, discounted=torch.full_like(sums, math.nan))  # TRL has no such reduction


def our_losses(model: torch.nn.Module, reference: torch.nn.Module, config: TrainingConfig) -> torch.Tensor:
    reference_B = None
    if config.needs_reference:
        with torch.no_grad():
            frozen = naive_logprobs(reference)
            logps = frozen.reduced(config.reduction)
            reference_B = objectives.margins(logps[:, 0], logps[:, 1])
    return losses(PassScores(naive_logprobs(model), reference_B=reference_B), config)


def gradients(model: torch.nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def check_same(theirs: dict[str, torch.Tensor], ours: dict[str, torch.Tensor]) -> None:
    assert theirs.keys() == ours.keys()
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-3, atol=1e-6)


def load(folder: Path) -> Any:
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize(
    ("loss", "settings", "ours"),
    [
        ("ipo", {"beta": 0.3}, {"objective": "ipo", "reduction": "mean"}),
        ("ipo", {"beta": 0.05}, {"objective": "ipo", "reduction": "mean"}),
        ("sigmoid", {"beta": 0.1}, {"objective": "dpo"}),
        ("sigmoid", {"beta": 1.0}, {"objective": "dpo"}),
        ("sigmoid_norm", {"beta": 2.0}, {"objective": "dpo", "reduction": "mean"}),
        ("robust", {"beta": 0.5, "label_smoothing": 0.1}, {"objective": "robust-dpo"}),
        ("robust", {"beta": 0.5, "label_smoothing": 0.4}, {"objective": "robust-dpo"}),
        ("hinge", {"beta": 0.2}, {"objective": "hinge"}),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_loss_and_gradients_equal_trls(
    tiny_model_path: Path, tmp_path: Path, loss: str, settings: dict[str, Any], ours: dict[str, Any]
) -> None:
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    trainer = trl_trainer(tiny_model_path, loss, tmp_path / "trl", **settings)
    trainer.model.train()
    theirs = trainer.compute_loss(trainer.model, DataCollatorForPreference(pad_token_id=2)(ROWS))
    model = load(tiny_model_path)
    value = our_losses(model, perturbed(model), TrainingConfig.model_validate({**settings, **ours})).mean()
    assert value.item() == pytest.approx(theirs.item(), rel=1e-5)
    assert value.item() > 0.01
    check_same(gradients(trainer.model, theirs), gradients(model, value))


@pytest.mark.parametrize("label_smoothing", [0.05, 0.3])
@pytest.mark.filterwarnings("ignore")
def test_conservative_dpo_equals_trls(tiny_model_path: Path, tmp_path: Path, label_smoothing: float) -> None:
    """TRL smooths labels in its AOT loss, which on a single pair has nothing to sort and is conservative DPO."""
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    settings = {"beta": 0.5, "label_smoothing": label_smoothing}
    trainer = trl_trainer(tiny_model_path, "aot", tmp_path / "trl", **settings)
    trainer.model.train()
    collate = DataCollatorForPreference(pad_token_id=2)
    theirs = torch.stack([trainer.compute_loss(trainer.model, collate([row])) for row in ROWS])
    model = load(tiny_model_path)
    ours = our_losses(model, perturbed(model), TrainingConfig.model_validate({**settings, "objective": "dpo"}))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    check_same(gradients(trainer.model, theirs.mean()), gradients(model, ours.mean()))


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.filterwarnings("ignore")
def test_simpo_equals_trls(tiny_model_path: Path, label_smoothing: float) -> None:
    from trl.experimental.cpo import CPOTrainer

    settings = {"beta": 2.0, "label_smoothing": label_smoothing}
    trainer = SimpleNamespace(
        loss_type="simpo", simpo_gamma=0.7, alpha=0.0, accelerator=SimpleNamespace(device="cpu"), **settings
    )
    model = load(tiny_model_path)
    means = naive_logprobs(model).means
    theirs, *_ = CPOTrainer.cpo_loss(trainer, means[:, 0], means[:, 1])
    config = TrainingConfig.model_validate({**settings, "objective": "simpo", "gamma": 0.7})
    ours = our_losses(model, model, config)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    check_same(gradients(model, theirs.mean()), gradients(model, ours.mean()))
