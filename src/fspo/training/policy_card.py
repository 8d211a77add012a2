"""The model card of a policy: what it is, how to use it with fspo and without, and how it was trained."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from fspo.modeling.layouts import example_messages
from fspo.modeling.rendering import Context
from fspo.training.config import TrainingConfig

__all__ = ["SEES", "may_be_replaced", "policy_card"]

_LIMITS = "## What it is not for\n"

SEES: Mapping[Context, str] = MappingProxyType(
    {
        "none": "nothing",
        "shots": "labelled preferences",
        "description": "a description",
        "both": "labelled preferences and a description",
    }
)
"""Context -> what the model sees of a user."""


def policy_card(
    title: str,
    about: str,
    facts: Sequence[str],
    context: Context,
    training: TrainingConfig,
    results: Sequence[str] = ("Not evaluated yet.\n",),
    *,
    peft_config: Mapping[str, Any] | None = None,
    own_tokenizer: bool = False,
) -> str:
    """The card as Markdown; the context is what the model sees of a user.

    `about` is one sentence. `facts` say what the policy was made from, and `results` what was measured, one line each.
    `peft_config` are settings of peft in the place of `training.lora`. `own_tokenizer` says whether the policy's folder
    has a tokenizer, as it always has with whole weights.
    """
    settings = training.model_dump(mode="json")
    if peft_config is not None:
        del settings["lora"]
        settings["peft_config"] = dict(peft_config)
    adapters = peft_config is not None or training.lora is not None
    return "\n".join(
        [
            f"# {title}\n",
            about + "\n",
            *(f"- {fact}" for fact in facts),
            "\n## How to use it\n",
            *_usage(context, training, adapters=adapters, own_tokenizer=own_tokenizer or not adapters),
            "## Results\n",
            *results,
            _LIMITS,
            "It was made to study personalisation. It has its base model's faults and was not tested for safety. The "
            "results do not apply to domains, languages or people other than those measured.\n",
            "## Training settings\n",
            f"```yaml\n{yaml.safe_dump(settings, sort_keys=False).rstrip()}\n```\n",
        ]
    )


def may_be_replaced(card: Path) -> bool:
    """Whether there is no such file, or a card that `policy_card` wrote; somebody's own README stays."""
    return not card.exists() or _LIMITS.encode() in card.read_bytes()


def _usage(context: Context, training: TrainingConfig, *, adapters: bool, own_tokenizer: bool) -> list[str]:
    """The words around people's texts, and how to load the policy with fspo and without."""
    shots, described = context in ("shots", "both"), context in ("description", "both")
    messages = example_messages(training.layout, shots=shots, description=described)
    many = f" It was trained with {training.shots} shots." if shots else ""
    system = (
        " A template without a system role takes the description and an empty line in front of the first question."
        if described and training.layout == "conversation"
        else ""
    )
    auto, package = ("AutoPeftModelForCausalLM", "peft") if adapters else ("AutoModelForCausalLM", "transformers")
    tokenizer = '"FOLDER"' if own_tokenizer else 'model.peft_config["default"].base_model_name_or_path'
    return [
        "With fspo, `FOLDER` being the policy's folder, and `person` rows of a person's own preferences:\n",
        "```python\nimport fspo\n\n"
        'policy = fspo.Policy.load("FOLDER")\n'
        'print(policy.generate(person, "PROMPT"))\n'
        'print(policy.reward(person, "PROMPT", ["ONE ANSWER", "ANOTHER"]))\n```\n',
        f"Without fspo, the model reads turns such as `messages` (layout `{training.layout}`), by its tokenizer's chat "
        f"template. `policy.messages` makes them, for any chat server too.{many}{system}\n",
        f"```python\nfrom {package} import {auto}\nfrom transformers import AutoTokenizer\n\n"
        f"messages = {json.dumps(messages, indent=4)}\n"
        f'model = {auto}.from_pretrained("FOLDER")\n'
        f"tokenizer = AutoTokenizer.from_pretrained({tokenizer})\n"
        'options = {"add_generation_prompt": True, "return_tensors": "pt", "return_dict": True}\n'
        "inputs = tokenizer.apply_chat_template(messages, **options)\n"
        'answer = model.generate(**inputs, max_new_tokens=128)[0, inputs["input_ids"].shape[1] :]\n'
        "print(tokenizer.decode(answer, skip_special_tokens=True))\n```\n",
    ]
