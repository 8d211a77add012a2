"""The card of a dataset: recipe, models, counts, diversity, consistency, licence of the sources, limits."""

from __future__ import annotations

from typing import Any

from fspo.synthesis.recipe.config import RecipeConfig
from fspo.synthesis.recipe.domain import RecipeDomain

__all__ = ["dataset_card"]


def dataset_card(
    config: RecipeConfig, domain: RecipeDomain, asked: str, written_by: str, checks: dict[str, Any]
) -> str:
    """A README in Markdown with the hub's header, from what the checks found."""
    counts, labels, diversity = checks["counts"], checks["labels"], checks["diversity"]
    rows = [
        ("users", f"{counts['users']:,}"),
        ("questions", f"{counts['questions']:,}, of which {counts['seeds']:,} written by people"),
        ("responses", f"{counts['responses']:,} of {checks['sampling']['asked']:,} asked for"),
        ("preferences", f"{counts['preferences']:,}; {counts['ties']:,} pairs were left undecided"),
        ("similarity of two responses to one question", _shown(diversity["mean_similarity"])),
        ("disagreement of two users", _shown(checks["disagreement"].get("mean"))),
    ]
    if config.judge == "llm":
        order = labels["order"]
        rows += [
            ("pairs judged alike in both orders", _shown(order["agreement"])),
            ("answers for the response shown first", _shown(order["first_share"])),
            ("accuracy of the labels, estimated from the two orders", _shown(order["estimated_accuracy"])),
            ("labels shared by the measured judge, where it decides", _shown(labels["agreement_with_measures"])),
            ("label entropy, before and after refinement (nats)", _before_after(labels["entropy"])),
        ]
    for name, found in (
        ("texts not used as responses", checks["sampling"]["rejected"]),
        ("pairs left undecided", labels["undecided"]),
        ("odd replies of the servers, over all calls", checks.get("replies", {})),
    ):
        if found:
            rows.append((name, ", ".join(f"{reason} {count:,}" for reason, count in found.items())))
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"""---
language: {domain.file.language}
task_categories: [text-generation]
tags: [preference, personalization, synthetic, fspo]
configs:
  - config_name: preferences
    default: true
    data_files: preferences.parquet
  - config_name: users
    data_files: users.parquet
---

# Preferences of synthetic users: {domain.name}

{domain.file.about}

| | |
|---|---|
{table}

## How it was made

- Questions: {_questions(config)}
- Responses: {_steering(config)}, by {written_by}, at most {config.max_tokens} tokens.
- Users: {_users(config, checks)}
- Labels: {_judge(config, asked)}
- Seed {config.seed}. `people.json` has the descriptions before and after refinement, `undecided/` the pairs without a
  label and why, `checks.json` all figures.

## Licence of the sources

{domain.file.licence} The responses are a language model's; its own licence may bind their use.

## Limits

- Users and labels are synthetic. How far they stand for people is not known from this dataset.
- {_limit(config)}
- The texts are a language model's, and may say what is not so.
"""


def _questions(config: RecipeConfig) -> str:
    if not config.augment:
        return "seeds written by people only."
    return "seeds written by people, and new ones by a language model shown a few of them; near-duplicates removed."


def _steering(config: RecipeConfig) -> str:
    return {
        "none": "without steering",
        "persona": "steered by personas of the domain",
        "views": f"each from one of up to {config.views} viewpoints that were listed beforehand",
    }[config.steering]


def _users(config: RecipeConfig, checks: dict[str, Any]) -> str:
    parts = ["portrayed by a language model from their traits" if config.portraits else "described by their traits"]
    refinement, casting = checks["refinement"], checks["casting"]
    if refinement["sentences"]:
        parts.append(f"{refinement['users']} of them extended by {refinement['sentences']} sentences in refinement")
    if casting["made_anew"]:
        parts.append(f"{casting['made_anew']} made anew for too little or too much disagreement")
    return ", ".join(parts) + "."


def _judge(config: RecipeConfig, asked: str) -> str:
    if config.judge == "measured":
        return f"attributes of the text, weighted by the user's traits; closer than {config.margin:g} is no label."
    return f"{asked}, shown the description and both responses, in both orders; kept where both agree."


def _limit(config: RecipeConfig) -> str:
    if config.judge == "measured":
        return "A measured judge sees form and word choice, not truth or usefulness."
    return "The estimated accuracy takes errors in the two orders to be independent: one made in both is not seen."


def _before_after(entropy: dict[str, Any]) -> str:
    return f"{_shown(entropy['before'])} to {_shown(entropy['after'])}"


def _shown(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3f}"
