"""Model cards: what a trained policy is, what it was made from, what it reached, and what it is not for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import yaml

from fspo.methods.table import Method
from fspo.modeling.layouts import example_messages
from fspo.modeling.model_names import is_hub_id
from fspo.printing import counted
from fspo.runs.config import RunConfig
from fspo.runs.versions import versions
from fspo.training.config import TrainingConfig

if TYPE_CHECKING:
    from fspo.evaluation.statistics.intervals import Estimate

__all__ = ["model_card"]

_MEASURES = {
    "reward_accuracy": "Reward accuracy",
    "label_flip_rate": "Label-flip rate",
    "user_swap_drop": "User-swap drop",
    "win_rate": "Win rate over the base model",
}


def model_card(
    row: Method,
    config: RunConfig,
    metrics: Mapping[str, Mapping[str, Estimate]],
    variants: Mapping[str, str] = MappingProxyType({}),
    left_out: int = 0,
) -> str:
    """The card of one trained method as Markdown; `metrics` is the run's metrics.json, or empty before evaluation.

    `variants` name the reward and the sampling that the figures are of; `left_out` counts preferences of the training
    part that the model can't read whole.
    """
    training = config.training_of(row)
    settings = training.model_dump(mode="json")
    start = f"the policy `{row.starts_from}` of the same run" if row.starts_from else "the base model"
    # Cards are published: no folder of this machine stands in them.
    model = config.model if is_hub_id(config.model) or "/" not in config.model else Path(config.model).name
    data = "a dataset of one's own" if config.data is not None else "synthetic users and preferences"
    return "\n".join(
        [
            f"# {row.title} ({config.name})\n",
            row.description + "\n",
            f"- Base model: `{model}`, whose licence applies",
            f"- Starts from: {start}",
            f"- Told of the user: {row.context}",
            f"- Trained on: {data}; held-out users and questions never occur in training",
            *(
                [f"- Left out of the training part: {counted(left_out, 'preferences')}, too long for the model"]
                if left_out
                else []
            ),
            f"- Made with: {', '.join(f'{name} {version}' for name, version in versions().items())}\n",
            "## How to use it\n",
            *_usage(row, training),
            "## Figures\n",
            *_figures(metrics.get(row.name, {}), variants),
            "## What it is not for\n",
            "It was made to study personalisation. It has its base model's faults, was not tested for safety, and the "
            "figures above say nothing of other domains, languages or people than those measured.\n",
            "## Training settings\n",
            f"```yaml\n{yaml.safe_dump(settings, sort_keys=False).rstrip()}\n```\n",
        ]
    )


def _usage(row: Method, training: TrainingConfig) -> list[str]:
    """The words around people's texts, and how to load the policy with fspo and without."""
    shots, described = row.context in ("shots", "both"), row.context in ("description", "both")
    messages = example_messages(training.layout, shots=shots, description=described)
    many = f" It was trained with {training.shots} shots." if shots else ""
    system = (
        " A template without a system role takes the description and an empty line in front of the first question."
        if described and training.layout == "conversation"
        else ""
    )
    auto, package = ("AutoPeftModelForCausalLM", "peft") if training.lora else ("AutoModelForCausalLM", "transformers")
    return [
        "With fspo, `FOLDER` being the policy's folder, and `person` rows of a person's own preferences:\n",
        "```python\nimport fspo\n\n"
        'policy = fspo.Policy.load("FOLDER")\n'
        'print(policy.generate(person, "PROMPT"))\n'
        'print(policy.reward(person, "PROMPT", ["ONE ANSWER", "ANOTHER"]))\n```\n',
        f"Without fspo, the model reads these turns (layout `{training.layout}`), by its tokenizer's chat template. "
        f"`policy.messages` makes them, for any chat server too.{many}{system}\n",
        f"```json\n{json.dumps(messages, indent=2)}\n```\n",
        f"```python\nfrom {package} import {auto}\nfrom transformers import AutoTokenizer\n\n"
        f'model = {auto}.from_pretrained("FOLDER")\n'
        'tokenizer = AutoTokenizer.from_pretrained("BASE MODEL")\n'
        'options = {"add_generation_prompt": True, "return_tensors": "pt", "return_dict": True}\n'
        "inputs = tokenizer.apply_chat_template(messages, **options)\n"
        'answer = model.generate(**inputs, max_new_tokens=128)[0, inputs["input_ids"].shape[1] :]\n'
        "print(tokenizer.decode(answer, skip_special_tokens=True))\n```\n",
    ]


def _figures(measures: Mapping[str, Estimate], variants: Mapping[str, str]) -> list[str]:
    rows = [(title, measures[name]) for name, title in _MEASURES.items() if name in measures]
    if not rows:
        return ["Not evaluated yet.\n"]
    lines = [
        "On held-out users and questions, with 95% intervals clustered by user"
        + "".join(f"; {kind}: {variant}" for kind, variant in variants.items())
        + ".\n",
        "| measure | value | interval |",
    ]
    lines.append("|---|---|---|")
    lines += [f"| {title} | {_percent(row.value)} | {_interval(row)} |" for title, row in rows]
    return [*lines, ""]


def _interval(row: Estimate) -> str:
    if row.low is None or row.high is None:
        return "none"
    return f"{_percent(row.low)} to {_percent(row.high)}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%"
