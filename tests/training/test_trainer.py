"""Losses on real (tiny) models, and the loop around them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainingArguments

from benchmarks.naive import naive_logprobs
from fspo.errors import ConfigError, TrainingError
from fspo.files import read_jsonl
from fspo.modeling.rendering import EpisodeRenderer
from fspo.preferences.sampling import EpisodeSampler
from fspo.training import objectives, processes
from fspo.training.adapters import frozen_copy, prepare_weights
from fspo.training.config import LoraSettings, TrainingConfig
from fspo.training.losses import figures, losses, score, total_loss
from fspo.training.references import reference_of, trainable_weights
from fspo.training.steps import EpisodeStream, StepBatch, StepCollator, Unit, shares, split_passes
from fspo.training.trainer import METRICS_FILE, PolicyTrainer, trim_metrics
from tests.training.helpers import small_dataset


def settings(**changes: Any) -> TrainingConfig:
    base = {"objective": "ipo", "beta": 0.1, "shots": 2, "queries": 2, "users_per_step": 2, "steps": 3, "warmup": 0}
    return TrainingConfig.model_validate({**base, "schedule": "constant", **changes})


def load(folder: Path) -> Any:
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM.from_pretrained(folder)


def collator(folder: Path, config: TrainingConfig, both_sides: bool = False) -> StepCollator:
    from transformers import AutoTokenizer

    return StepCollator(EpisodeRenderer(AutoTokenizer.from_pretrained(folder)), config, both_sides)


def stream(config: TrainingConfig) -> EpisodeStream:
    sampler = EpisodeSampler(small_dataset(), shots=config.shots, queries=config.queries, seed=config.seed)
    return EpisodeStream(sampler, config.steps * config.users_per_step)


def units(folder: Path, config: TrainingConfig, count: int = 2) -> list[Unit]:
    episodes = stream(config)
    return [collator(folder, config).unit(*episodes[index]) for index in range(count)]


def whole_loss(loop: PolicyTrainer, step: StepBatch) -> torch.Tensor:
    """The loss of a step in one go, without splitting it into passes."""
    return total_loss(loop._scores(loop.model, list(step.units)), loop._config)


def trainer(folder: Path, out: Path, config: TrainingConfig, **more: Any) -> PolicyTrainer:
    model = prepare_weights(load(folder), config.lora, seed=config.seed)
    frozen = frozen_copy(model) if config.lora is None else None
    reference = reference_of(model, frozen) if config.needs_reference else None
    return PolicyTrainer(
        model,
        config=config,
        stream=stream(config),
        collator=collator(folder, config),
        folder=out,
        reference=reference,
        **more,
    )


def noisy(model: Any, seed: int = 5) -> Any:
    """The model moved away from where it started, so that margins against the reference are not zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in trainable_weights(model).values():
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
    return model


@pytest.mark.parametrize("lora", [True, False])
def test_a_fresh_policy_equals_its_reference(tiny_model_path: Path, lora: bool) -> None:
    config = settings(mirror=True, lora={} if lora else None)
    model = prepare_weights(load(tiny_model_path), config.lora, seed=0)
    reference = reference_of(model, None if lora else frozen_copy(model))
    scores = score(model, units(tiny_model_path, config), config, reference)
    assert scores.mirrored is not None
    target = 1 / (2 * config.beta)
    torch.testing.assert_close(losses(scores, config), torch.full((4,), target**2).double(), rtol=1e-4, atol=1e-3)
    moved = score(noisy(model), units(tiny_model_path, config), config, reference)
    assert moved.reference_B is not None
    assert scores.reference_B is not None
    assert not torch.allclose(losses(moved, config), losses(scores, config), rtol=1e-3)
    torch.testing.assert_close(moved.reference_B, scores.reference_B)


@pytest.mark.parametrize(
    "changes",
    [
        {"objective": "ipo"},
        {"objective": "dpo", "label_smoothing": 0.1},
        {"objective": "dpo", "length_weight": 0.05},
        {"objective": "robust-dpo", "label_smoothing": 0.2},
        {"objective": "hinge"},
        {"objective": "simpo", "beta": 2.0},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_a_mirrored_loss_is_the_mean_of_the_losses_of_both_episodes(
    tiny_model_path: Path, changes: dict[str, Any]
) -> None:
    config = settings(mirror=True, **changes)
    alone = config.model_copy(update={"mirror": False})
    model = noisy(prepare_weights(load(tiny_model_path), config.lora, seed=0))
    reference = reference_of(model, None) if config.needs_reference else None
    index, episode = stream(config)[0]
    one = collator(tiny_model_path, config).unit(index, episode)
    twins = [collator(tiny_model_path, alone).unit(index, e) for e in (episode, episode.mirror())]
    together = losses(score(model, [one], config, reference), config)
    apart = losses(score(model, twins, alone, reference), alone)
    torch.testing.assert_close(together, apart.view(2, -1).mean(0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("contrast", ["squared", "logistic"])
def test_contrast_follows_the_naive_log_probs(tiny_model_path: Path, contrast: str) -> None:
    config = settings(objective="mirrored-contrast", contrast=contrast, bias_weight=0.3, target=1.5)
    model = noisy(prepare_weights(load(tiny_model_path), config.lora, seed=0))
    [unit] = units(tiny_model_path, config, 1)
    assert unit.mirrored is not None
    scores = score(model, [unit], config, reference_of(model, None))
    h, mirrored = (m.sums[:, 0] - m.sums[:, 1] for m in naive_logprobs(model, [unit.plain, unit.mirrored]))
    with model.disable_adapter():
        r, s = (m.sums[:, 0] - m.sums[:, 1] for m in naive_logprobs(model, [unit.plain, unit.mirrored]))
    e, b = (h - mirrored) / 2, (h + mirrored - r - s) / 2
    pull = (e - 1.5) ** 2 if contrast == "squared" else -torch.nn.functional.logsigmoid(e)
    torch.testing.assert_close(losses(scores, config), pull + 0.3 * b**2, rtol=1e-3, atol=1e-3)
    means = figures(scores, config)
    assert means["effect"] == pytest.approx(e.mean().item(), abs=1e-3)
    assert means["bias"] == pytest.approx(b.abs().mean().item(), abs=1e-3)


def test_pref_ft_is_the_likelihood_of_the_chosen(tiny_model_path: Path) -> None:
    config = settings(objective="pref-ft", mirror=True)
    model = load(tiny_model_path)
    [unit] = units(tiny_model_path, config, 1)
    assert unit.mirrored is not None
    naive = [m.sums[:, 0] / m.lengths[:, 0] for m in naive_logprobs(model, [unit.plain, unit.mirrored])]
    torch.testing.assert_close(losses(score(model, [unit], config), config), -(naive[0] + naive[1]) / 2)


def test_pref_ft_can_be_mixed_in(tiny_model_path: Path) -> None:
    model, plain = load(tiny_model_path), settings(objective="mirrored-contrast")
    scores = score(model, units(tiny_model_path, plain), plain)
    mixed = losses(scores, plain.model_copy(update={"pref_ft_weight": 0.5})) - losses(scores, plain)
    pref_ft = losses(scores, settings(objective="pref-ft"))
    torch.testing.assert_close(mixed, 0.5 * pref_ft, rtol=1e-4, atol=1e-4)


def test_a_reference_without_context_is_the_bare_prompts(tiny_model_path: Path) -> None:
    config = settings(reference="none", ladder=[1, 2])
    model = noisy(prepare_weights(load(tiny_model_path), config.lora, seed=0))
    chosen_units = units(tiny_model_path, config)
    scores = score(model, chosen_units, config, reference_of(model, None))
    assert scores.reference_B is not None
    bare = [unit.reference for unit in chosen_units if unit.reference]
    with model.disable_adapter():
        per_query = [m.sums[:, 0] - m.sums[:, 1] for m in naive_logprobs(model, bare)]
    expected = [per_query[n][b.query] for n, unit in enumerate(chosen_units) for b in unit.plain.branches]
    torch.testing.assert_close(scores.reference_B, torch.stack(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("objective", ["pref-ft", "ipo", "mirrored-contrast"])
def test_gradients_of_several_passes_are_those_of_one(tiny_model_path: Path, tmp_path: Path, objective: str) -> None:
    config = settings(objective=objective, row_tokens=1, users_per_step=3)
    loop = trainer(tiny_model_path, tmp_path, config)
    noisy(loop.model)
    episodes = stream(config)
    batch = loop.data_collator([episodes[index] for index in range(3)])
    assert len(batch["step"].passes) == 3
    split = loop.training_step(loop.model, batch)
    gradients = {name: weight.grad.clone() for name, weight in trainable_weights(loop.model).items()}
    loop.model.zero_grad()
    whole = whole_loss(loop, batch["step"])
    whole.backward()
    assert split.item() == pytest.approx(whole.item(), rel=1e-4)
    for name, weight in trainable_weights(loop.model).items():
        assert weight.grad is not None
        torch.testing.assert_close(gradients[name], weight.grad, rtol=1e-3, atol=1e-4)


def test_margins_mean_per_token_when_asked(tiny_model_path: Path) -> None:
    config = settings(objective="dpo", beta=1.0, reduction="mean")
    model = load(tiny_model_path)
    chosen_units = units(tiny_model_path, config)
    scores = score(model, chosen_units, config)
    means = scores.plain.sums / scores.plain.lengths
    torch.testing.assert_close(losses(scores, config), objectives.dpo(means[:, 0] - means[:, 1], 1.0))


class Listener:
    def __init__(self) -> None:
        self.notes: list[str] = []

    def advance(self, steps: float = 1.0, note: str = "") -> None:
        self.notes.append(note)


def test_the_loop_learns_and_tells_of_every_step(tiny_model_path: Path, tmp_path: Path) -> None:
    config = settings(objective="pref-ft", steps=12, learning_rate=0.02, evaluate_every=6, lora=None)
    measured = settings(objective="pref-ft", mirror=True)
    episodes = stream(config)
    validation = [collator(tiny_model_path, measured, both_sides=True).unit(*episodes[i]) for i in range(2)]
    listener = Listener()
    loop = trainer(tiny_model_path, tmp_path, config, validation=validation)
    loop.listener = listener
    loop.train()
    records = read_jsonl(tmp_path / METRICS_FILE)
    assert [record["step"] for record in records] == list(range(1, 13))
    assert records[-1]["nll"] < 0.8 * records[0]["nll"]
    assert {"loss", "grad_norm", "learning_rate", "tokens_per_second", "dropped_shots"} <= records[0].keys()
    assert [record["step"] for record in records if "eval_direction_accuracy" in record] == [6, 12]
    assert len(listener.notes) == 12
    assert "nll" in listener.notes[0]


@pytest.mark.parametrize(
    "changes", [{"objective": "ipo", "mirror": True}, {"objective": "mirrored-contrast", "bias_weight": 0.1}]
)
def test_the_reference_scores_each_validation_unit_once(
    tiny_model_path: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    config, entered = settings(**changes), list[str]()
    measured = units(tiny_model_path, config, 3)
    loop = trainer(tiny_model_path, tmp_path, config, validation=measured)
    reference = loop._reference
    assert reference is not None
    loop._reference = lambda: entered.append("once more") or reference()  # type: ignore[func-returns-value]
    before = loop.evaluate_episodes()
    noisy(loop.model)
    after = loop.evaluate_episodes()
    assert len(entered) == 3
    assert after != before
    loop.validation = measured
    assert loop.evaluate_episodes() == after


def test_contrast_learns_to_read_the_labels(tiny_model_path: Path, tmp_path: Path) -> None:
    config = settings(objective="mirrored-contrast", steps=20, learning_rate=0.02, lora=None, users_per_step=4, shots=1)
    trainer(tiny_model_path, tmp_path, config).train()
    records = read_jsonl(tmp_path / METRICS_FILE)
    assert sum(record["direction_accuracy"] for record in records[-10:]) / 10 > 0.8
    assert sum(record["effect"] for record in records[-10:]) / 10 > 1.0


def test_lora_on_the_last_layers_only(tiny_model_path: Path) -> None:
    lora = LoraSettings(r=2, last_layers=1, target_modules=["q_proj"])
    names = trainable_weights(prepare_weights(load(tiny_model_path), lora, seed=0))
    assert len(names) == 2
    assert all(".layers.1." in name for name in names)
    everywhere = trainable_weights(prepare_weights(load(tiny_model_path), LoraSettings(), seed=0))
    above = trainable_weights(prepare_weights(load(tiny_model_path), LoraSettings(last_layers=1), seed=0))
    assert (len(everywhere), len(above)) == (2 * 7 * 2, 7 * 2)


@pytest.mark.parametrize(
    ("lora", "message"),
    [({"last_layers": 3}, "only 2 layers"), ({"target_modules": ["no_such"]}, "names no layers")],
)
def test_lora_on_what_is_not_there(tiny_model_path: Path, lora: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare_weights(load(tiny_model_path), LoraSettings.model_validate(lora), seed=0)


def test_new_adapters_follow_the_seed_and_leave_the_generator_alone(tiny_model_path: Path) -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state()
    first, again, other = (
        trainable_weights(prepare_weights(load(tiny_model_path), LoraSettings(), seed=seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    name = next(name for name in first if "lora_A" in name)
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_not_a_number_stops_training(
    tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    loop = trainer(tiny_model_path, tmp_path, settings(lora=None))
    if where == "loss":
        with torch.no_grad():
            next(loop.model.parameters()).fill_(math.nan)
    else:
        next(loop.model.parameters()).register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(TrainingError, match=rf"{where} of step 1 .*episodes 0, 1 of users u\d, u\d"):
        loop.train()
    assert not list((tmp_path / "checkpoints").glob("checkpoint-*"))


def test_metrics_of_steps_to_be_repeated_are_forgotten(tmp_path: Path) -> None:
    (tmp_path / METRICS_FILE).write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    trim_metrics(tmp_path, 2)
    assert read_jsonl(tmp_path / METRICS_FILE) == [{"step": 1}, {"step": 2}]
    trim_metrics(tmp_path / "nowhere", 2)


def test_processes_without_a_user_are_refused(
    tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainingArguments, "world_size", 3)
    with pytest.raises(ConfigError, match="3 processes can't share 2 users a step"):
        trainer(tiny_model_path, tmp_path, settings())


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "DeepSpeed"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}, "fsdp_version: 2"),
        (
            {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_CPU_RAM_EFFICIENT_LOADING": "True"},
            "fsdp_cpu_ram_efficient_loading: false",
        ),
    ],
)
def test_sharding_that_is_not_supported_is_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message):
        processes.check_launcher()


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("lora", [{}, None])
def test_the_shares_of_all_processes_add_up_to_the_step(
    tiny_model_path: Path, tmp_path: Path, count: int, lora: dict[str, Any] | None
) -> None:
    config = settings(users_per_step=5, objective="ipo", lora=lora)
    loop = trainer(tiny_model_path, tmp_path, config)
    noisy(loop.model)
    some = units(tiny_model_path, config, 3)
    uneven = units(tiny_model_path, settings(queries=4, ladder=[1, 2]), 2)
    step = StepBatch(split_passes([*some, *uneven], config.row_tokens))
    assert len({unit.pairs for unit in step.units}) == 2
    whole = whole_loss(loop, step)
    whole.backward()
    gradients = {name: weight.grad.clone() for name, weight in trainable_weights(loop.model).items()}
    loop.model.zero_grad()
    total = 0.0
    for share in shares(list(step.units), count, row_tokens=1500):
        for group in share.passes[: share.counted]:
            loss = whole_loss(loop, StepBatch((group,)))
            weighted = loss * sum(unit.pairs for unit in group) / step.pairs
            weighted.backward()
            total += weighted.item()
    assert total == pytest.approx(whole.item(), rel=1e-5)
    for name, weight in trainable_weights(loop.model).items():
        difference = (gradients[name] - weight.grad).norm() / weight.grad.norm().clamp(min=1e-6)
        assert difference < 1e-4


def test_the_episode_whose_loss_is_not_a_number_is_named(
    tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fspo.training import losses as module

    def losses_of(scores: Any, config: TrainingConfig) -> torch.Tensor:
        values = losses(scores, config)
        return values * torch.where(torch.arange(len(values)) == 3, math.nan, 1.0)

    monkeypatch.setattr(module, "losses", losses_of)
    with pytest.raises(TrainingError, match=r"step 1 is not a number \(episodes 1 of users u\d\)"):
        trainer(tiny_model_path, tmp_path, settings()).train()
