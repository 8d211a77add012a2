"""How much GPU memory a training needs, by calculation, and whether the card has it; nothing is loaded or measured.

    python -m benchmarks.gpu_memory configs/gpu/*.yaml      # exit code 1 if a configuration does not fit its card

The name of a configuration says which cards it is for: `3b-24gb` is for one of 24 GB, `8b-4x24gb` for four of them,
which share the weights (FSDP2). The shapes of the models in `configs/gpu` are in `SHAPES`; the shape of another model
is read from its folder or from the hub. With T tokens in a pass (`row_tokens`), all sizes in bytes:

    weights       4 for each weight, divided by the cards
    trained       12 for each trained weight: gradient (4) and AdamW's two states (8); adapters have 4 more themselves
    reference     4 for each weight if all weights are trained, 0 with adapters, which are switched off for it
    gathered      cards that share: the embeddings, the head and two layers at full size (4 for each weight)
    activations   what a layer keeps for the way back, see `layer_bytes`; of one layer with gradient_checkpointing, plus
                  4 T hidden_size for each layer, and else of all layers
    head          logits of 2^26 elements at once, four times in float32
    spare         1.5 GiB for CUDA and its libraries, and a tenth of the rest for blocks that the allocator can't use

The arithmetic is bfloat16 under autocast, as `dtype: bfloat16` sets it. It is an estimate, and no GPU has confirmed it.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

from fspo.modeling.loading import load_configuration
from fspo.runs.config import load_config
from fspo.training.config import TrainingConfig

__all__ = ["SHAPES", "Card", "Memory", "Shape", "adapter_weights", "layer_bytes", "main", "memory_of"]

_GIB = 2**30
_LOGITS = 2**26
"""As in `fspo.modeling.logprobs`."""

SHAPES: dict[str, Any] = {
    "Qwen/Qwen2.5-1.5B-Instruct": Qwen2Config(
        vocab_size=151936,
        hidden_size=1536,
        intermediate_size=8960,
        num_hidden_layers=28,
        num_attention_heads=12,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    ),
    "Qwen/Qwen2.5-3B-Instruct": Qwen2Config(
        vocab_size=151936,
        hidden_size=2048,
        intermediate_size=11008,
        num_hidden_layers=36,
        num_attention_heads=16,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    ),
    "Qwen/Qwen2.5-7B-Instruct": Qwen2Config(
        vocab_size=152064,
        hidden_size=3584,
        intermediate_size=18944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        tie_word_embeddings=False,
    ),
    "meta-llama/Llama-3.1-8B-Instruct": LlamaConfig(
        vocab_size=128256,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        tie_word_embeddings=False,
    ),
}
"""Shapes of the models in `configs/gpu`, as their publishers give them."""


@dataclass(frozen=True)
class Shape:
    """What the calculation needs to know of a model."""

    weights: int
    """All weights; tied ones count once."""
    layer_weights: int
    """Weights of one layer."""
    outside: int
    """Weights outside the layers: embeddings, head, last norm."""
    linear: tuple[tuple[int, int], ...]
    """(inputs, outputs) of the linear parts of one layer."""
    layers: int
    hidden: int
    inner: int
    queries: int
    """Width of all query heads together."""
    keys: int
    """Width of all key heads together."""

    @classmethod
    def of(cls, config: Any) -> Shape:
        """The shape of a transformers configuration whose layers are alike; no weight is allocated."""
        auto: Any = AutoModelForCausalLM
        with torch.device("meta"):
            model = auto.from_config(config)
        layers = model.get_decoder().layers
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        layer_weights = sum(weight.numel() for weight in layers[0].parameters())
        weights = sum(weight.numel() for weight in model.parameters())
        linear = [part for part in layers[0].modules() if isinstance(part, nn.Linear)]
        return cls(
            weights=weights,
            layer_weights=layer_weights,
            outside=weights - layer_weights * len(layers),
            linear=tuple((part.in_features, part.out_features) for part in linear),
            layers=len(layers),
            hidden=config.hidden_size,
            inner=config.intermediate_size,
            queries=config.num_attention_heads * size,
            keys=config.num_key_value_heads * size,
        )


@dataclass(frozen=True)
class Card:
    """The GPUs that a configuration is for."""

    gigabytes: int
    count: int = 1

    @classmethod
    def of(cls, path: Path) -> Card:
        """The cards in the name of a configuration.

        Raises:
            ValueError: the name has none.
        """
        found = re.fullmatch(r".*-(?:(\d+)x)?(\d+)gb", path.stem)
        if found is None:
            raise ValueError(f"{path} names no card; call it as 3b-24gb.yaml or 8b-4x24gb.yaml.")
        return cls(int(found[2]), int(found[1] or 1))

    @property
    def usable(self) -> float:
        """GiB that a process can get: cards of 24 GB report from 22.0 GiB up, those of 80 GB from 79.1."""
        return {24: 22.0, 80: 79.0}.get(self.gigabytes, 0.92 * self.gigabytes)


@dataclass(frozen=True)
class Memory:
    """The parts of the memory of one card, in bytes; see the module."""

    weights: float
    trained: float
    reference: float
    gathered: float
    activations: float
    head: float

    @property
    def spare(self) -> float:
        """For CUDA itself, and for blocks that can't be used."""
        return 1.5 * _GIB + 0.1 * float(sum(vars(self).values()))

    @property
    def gib(self) -> float:
        """All of it, in GiB."""
        return (float(sum(vars(self).values())) + self.spare) / _GIB


def adapter_weights(shape: Shape, training: TrainingConfig) -> int:
    """Weights of the adapters on all linear parts of the layers; fewer parts have fewer."""
    if training.lora is None:
        return 0
    adapted = min(training.lora.last_layers or shape.layers, shape.layers)
    return adapted * training.lora.r * sum(inputs + outputs for inputs, outputs in shape.linear)


def layer_bytes(shape: Shape) -> int:
    """Bytes that one layer with adapters keeps for the way back, for each token.

    Two norms keep their input and its normalised values in float32 (16 hidden). Adapters keep a bfloat16 copy of
    what they read: five times the hidden state, once the attention's output and once the MLP's inner values. Attention
    keeps queries, keys, values and output; the gated MLP its two factors and what the activation gave.
    """
    norms = 16 * shape.hidden
    adapters = 2 * (5 * shape.hidden + shape.queries + shape.inner)
    attention = 4 * (2 * shape.queries + 2 * shape.keys)
    return norms + adapters + attention + 6 * shape.inner


def memory_of(shape: Shape, training: TrainingConfig, cards: int = 1) -> Memory:
    """What a training needs on each of the cards, which share the weights if there are several."""
    adapters = adapter_weights(shape, training)
    trained = adapters or shape.weights
    whole_layer = training.row_tokens * layer_bytes(shape) + 2 * shape.layer_weights
    kept = 4 * training.row_tokens * shape.hidden * shape.layers
    copies = training.lora is None and training.needs_reference and not training.precompute_reference
    return Memory(
        weights=4 * (shape.weights + adapters) / cards,
        trained=12 * trained / cards,
        reference=4 * shape.weights / cards if copies else 0,
        gathered=4 * (shape.outside + 2 * shape.layer_weights) if cards > 1 else 0,
        activations=kept + whole_layer if training.gradient_checkpointing else shape.layers * whole_layer,
        head=4 * 4 * _LOGITS,
    )


def _largest(path: Path) -> tuple[str, Memory, Card]:
    """The memory of the training that needs most, the model and the cards of a configuration."""
    config, card = load_config(path), Card.of(path)
    shape = Shape.of(SHAPES[config.model] if config.model in SHAPES else load_configuration(config.model))
    needs = [memory_of(shape, training, card.count) for training in config.training.values()]
    return config.model, max(needs, key=lambda memory: memory.gib), card


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the calculation from the command line; 1 if a configuration does not fit."""
    parser = argparse.ArgumentParser(prog="benchmarks.gpu_memory", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("configurations", type=Path, nargs="+")
    rows = []
    for path in parser.parse_args(arguments).configurations:
        model, memory, card = _largest(path)
        fits = memory.gib <= card.usable
        each = f" on each of {card.count} cards" if card.count > 1 else ""
        verdict = "fits" if fits else "does not fit"
        print(f"{path.stem}: {model} needs {memory.gib:.1f} GiB{each}, and {card.usable:.0f} are usable: {verdict}")
        parts = {**vars(memory), "spare": memory.spare}
        print("  " + ", ".join(f"{name} {size / _GIB:.1f}" for name, size in parts.items() if size))
        rows.append({"configuration": path.stem, "model": model, "gib": round(memory.gib, 1), "fits": fits})
    print(json.dumps({"benchmark": "gpu_memory", "rows": rows}))
    return 0 if all(row["fits"] for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
