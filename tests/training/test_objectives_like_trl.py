"""IPO and DPO equal TRL's DPOTrainer on the same batch, loss and gradients, once the reduction is accounted for."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from fspo.training import objectives

pytest.importorskip("trl")
pytest.importorskip("datasets")

ROWS = [
    {"prompt_ids": [5, 9, 17, 40], "chosen_ids": [21, 22, 23], "rejected_ids": [30, 31, 32, 33, 34, 2]},
    {"prompt_ids": [8, 44], "chosen_ids": [60, 61, 62, 63, 2], "rejected_ids": [70, 2]},
    {"prompt_ids": [90, 3, 11], "chosen_ids": [12, 13], "rejected_ids": [14, 15, 16, 2]},
]


def trl_trainer(folder: Path, loss: str, beta: float, out: Path) -> Any:
    from datasets import Dataset
    from transformers import AutoTokenizer, LlamaForCausalLM
    from trl import DPOConfig, DPOTrainer

    model = LlamaForCausalLM.from_pretrained(folder)
    reference = perturbed(model)
    arguments = DPOConfig(
        output_dir=str(out),
        loss_type=[loss],
        beta=beta,
        max_length=None,
        per_device_train_batch_size=len(ROWS),
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
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


def our_loss(model: torch.nn.Module, reference: torch.nn.Module, loss: str, beta: float) -> torch.Tensor:
    reduction: objectives.Reduction = "mean" if loss == "ipo" else "sum"
    logps = {}
    for name, scorer in (("policy", model), ("reference", reference)):
        for side in ("chosen_ids", "rejected_ids"):
            lengths = torch.tensor([len(row[side]) for row in ROWS])
            with torch.set_grad_enabled(name == "policy"):
                logps[name, side] = objectives.reduce_logprobs(naive_sums(scorer, side), lengths, reduction)
    margins_B = objectives.margins(
        logps["policy", "chosen_ids"],
        logps["policy", "rejected_ids"],
        logps["reference", "chosen_ids"],
        logps["reference", "rejected_ids"],
    )
    return (objectives.ipo if loss == "ipo" else objectives.dpo)(margins_B, beta).mean()


@pytest.mark.parametrize(("loss", "beta"), [("ipo", 0.3), ("ipo", 0.05), ("sigmoid", 0.1), ("sigmoid", 1.0)])
@pytest.mark.filterwarnings("ignore")
def test_loss_and_gradients_equal_trls(tiny_model_path: Path, tmp_path: Path, loss: str, beta: float) -> None:
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    trainer = trl_trainer(tiny_model_path, loss, beta, tmp_path / "trl")
    batch = DataCollatorForPreference(pad_token_id=2)(ROWS)
    trainer.model.train()
    theirs = trainer.compute_loss(trainer.model, batch)
    theirs.backward()
    their_gradients = {name: weight.grad.clone() for name, weight in trainer.model.named_parameters()}
    trainer.model.zero_grad()

    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(tiny_model_path)
    ours = our_loss(model, perturbed(model), loss, beta)
    ours.backward()
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    assert ours.item() > 0.01
    for name, weight in model.named_parameters():
        assert weight.grad is not None
        torch.testing.assert_close(weight.grad, their_gradients[name], rtol=1e-3, atol=1e-6)
