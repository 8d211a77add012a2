"""Model cards: what a trained policy is, what it was made from, what it reached, and what it is not for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from fspo.methods.table import Method
from fspo.modeling.folders import has_tokenizer
from fspo.modeling.model_names import is_hub_id
from fspo.printing import counted
from fspo.runs.config import RunConfig
from fspo.runs.versions import versions
from fspo.training.policy_card import SEES, policy_card

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
    *,
    policy: Path | None = None,
) -> str:
    """The card of one trained method as Markdown; `metrics` is the run's metrics.json, or empty before evaluation.

    `variants` name the reward and the sampling that the figures are of. `policy` is the folder of the policy, which
    says how many preferences of the training part were left out, and whether it has a tokenizer.
    """
    from fspo.training.training_folder import left_out_of

    training = config.training_of(row)
    start = f"the policy `{row.starts_from}` of the same run" if row.starts_from else "the base model"
    # Cards are published: no folder of this machine stands in them.
    model = config.model if is_hub_id(config.model) or "/" not in config.model else Path(config.model).name
    data = "a dataset of one's own" if config.data is not None else "synthetic users and preferences"
    left_out = 0 if policy is None else left_out_of(policy)
    facts = [
        f"Base model: `{model}`, whose licence applies",
        f"Starts from: {start}",
        f"Sees of the user: {SEES[row.shown]}",
        f"Trained on: {data}; held-out users and questions never occur in training",
        f"Left out of the training part: {counted(left_out, 'preferences')}, too long for the model"
        if left_out
        else "",
        f"Made with: {', '.join(f'{name} {version}' for name, version in versions().items())}",
    ]
    results = _figures(metrics.get(row.name, {}), variants)
    return policy_card(
        f"{row.title} ({config.name})",
        row.description,
        list(filter(None, facts)),
        row.shown,
        training,
        results,
        own_tokenizer=policy is not None and has_tokenizer(policy),
    )


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
