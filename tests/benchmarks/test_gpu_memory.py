"""The calculation of GPU memory beside what torch and peft say, and every configuration of `configs/gpu`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig
from typer.testing import CliRunner

from benchmarks import gpu_memory
from benchmarks.gpu_memory import SHAPES, Card, Shape, adapter_weights, layer_bytes, memory_of
from fspo.cli.main import app
from fspo.modeling.loading import load_tokenizer
from fspo.runs.config import load_config
from fspo.training.adapters import prepare_weights
from fspo.training.config import LoraSettings, TrainingConfig
from tests.conftest import once
from tests.runs.test_training_data import saved

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs/gpu").glob("*.yaml"))
PUBLISHED = {
    "Qwen/Qwen2.5-1.5B-Instruct": 1_543_714_304,
    "Qwen/Qwen2.5-3B-Instruct": 3_085_938_688,
    "Qwen/Qwen2.5-7B-Instruct": 7_615_616_512,
    "meta-llama/Llama-3.1-8B-Instruct": 8_030_261_248,
}


def llama(layers: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=96,
        hidden_size=64,
        intermediate_size=224,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=2,
    )


def test_the_shapes_have_the_published_numbers_of_weights() -> None:
    assert {name: Shape.of(config).weights for name, config in SHAPES.items()} == PUBLISHED


@pytest.mark.parametrize("last_layers", [None, 1])
def test_adapters_are_counted_as_peft_makes_them(last_layers: int | None) -> None:
    lora = LoraSettings(r=4, last_layers=last_layers)
    policy = prepare_weights(AutoModelForCausalLM.from_config(llama(3)), lora, seed=0)
    made = sum(weight.numel() for weight in policy.parameters() if weight.requires_grad)
    assert adapter_weights(Shape.of(llama(3)), TrainingConfig(lora=lora)) == made


def kept_for_the_way_back(layers: int, tokens: int) -> int:
    """Bytes that torch keeps of a forward pass in bfloat16, the model's own weights not counted."""
    policy = prepare_weights(AutoModelForCausalLM.from_config(llama(layers)), LoraSettings(r=4), seed=0)
    own = {weight.untyped_storage().data_ptr() for weight in policy.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    ids = torch.arange(tokens)[None] % 96
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        hidden = policy.get_base_model().get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    assert hidden.requires_grad
    return sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in own)


def test_a_layer_keeps_about_what_is_calculated() -> None:
    few, many = 64, 192
    one_layer = [kept_for_the_way_back(3, tokens) - kept_for_the_way_back(2, tokens) for tokens in (few, many)]
    measured = (one_layer[1] - one_layer[0]) / (many - few)  # the copies of the weights do not grow with the tokens
    assert 0.9 * measured < layer_bytes(Shape.of(llama(2))) < 1.5 * measured


def test_more_cards_take_less_each_and_checkpointing_saves_activations() -> None:
    shape = Shape.of(SHAPES["meta-llama/Llama-3.1-8B-Instruct"])
    plain = TrainingConfig()
    saving = TrainingConfig(gradient_checkpointing=True)
    assert memory_of(shape, saving).activations < 0.2 * memory_of(shape, plain).activations
    assert memory_of(shape, saving, 4).weights == memory_of(shape, saving).weights / 4
    assert memory_of(shape, TrainingConfig(lora=None)).reference == 4 * shape.weights


def test_every_configuration_fits_its_card_and_says_what_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(CONFIGS) >= 4
    assert {Card.of(path) for path in CONFIGS} >= {Card(24), Card(80), Card(24, 4)}
    assert gpu_memory.main([str(path) for path in CONFIGS]) == 0
    for name, gib in re.findall(r"^(\S+): \S+ needs (\S+) GiB", capsys.readouterr().out, re.MULTILINE):
        said = re.search(r"takes (\d+) GiB", (ROOT / f"configs/gpu/{name}.yaml").read_text(encoding="utf-8"))
        assert said is not None and abs(int(said[1]) - float(gib)) <= 0.5, f"{name} takes {gib} GiB"


def test_a_configuration_that_does_not_fit_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "configs/gpu/3b-24gb.yaml").read_text(encoding="utf-8")
    (tmp_path / "3b-24gb.yaml").write_text(re.sub(r"row_tokens: \d+", "row_tokens: 65536", text), encoding="utf-8")
    assert gpu_memory.main([str(tmp_path / "3b-24gb.yaml")]) == 1
    assert "does not fit" in capsys.readouterr().out


@pytest.fixture(scope="session")
def tiny_of(tiny_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Architecture -> folder of a tiny random model of it."""
    tokenizer = load_tokenizer(tiny_model_path)

    def make(folder: Path) -> None:
        for config in {shape.model_type: shape for shape in SHAPES.values()}.values():
            sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
            heads: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2}
            small = type(config)(vocab_size=len(tokenizer), max_position_embeddings=4096, **sizes, **heads)
            small.pad_token_id, small.eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id
            AutoModelForCausalLM.from_config(small).save_pretrained(folder / config.model_type)
            tokenizer.save_pretrained(folder / config.model_type)

    folder = once(tmp_path_factory, "tiny-architectures", make)
    return {path.name: path for path in folder.iterdir()}


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_runs_on_a_tiny_model_of_its_architecture(
    path: Path, tiny_of: dict[str, Path], tmp_path: Path
) -> None:
    """One step of FSPO and a short evaluation, on the processor and small data, with all other settings as they are."""
    model = tiny_of[SHAPES[load_config(path).model].model_type]
    small = [f"model={model}", f"data={saved(tmp_path / 'data', 'plants')}", "methods=[fspo]", "from_base=[fspo]"]
    small += ["training.all.steps=1", "training.all.users_per_step=1", "training.all.warmup=0"]
    small += ["training.all.shots=2", "training.all.queries=2"]
    small += ["evaluation={users: 2, shots: 2, queries: 2, answers: 0, dtype: bfloat16, robustness: {users: 0}}"]
    arguments = ["run", str(path), "--output", str(tmp_path / "run")]
    done = CliRunner().invoke(app, [*arguments, *(word for one in small for word in ("--set", one))])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "run/methods/fspo/policy.json").is_file()
    assert (tmp_path / "run/report.html").is_file()
