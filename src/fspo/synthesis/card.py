"""The card of a dataset: recipe, models, counts, diversity, consistency, licence of the sources, limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fspo.judging.trait_readers import READABLE
from fspo.synthesis.config import SynthesisConfig
from fspo.synthesis.domain import Domain

__all__ = ["dataset_card", "reading_in_words"]


def dataset_card(config: SynthesisConfig, domain: Domain, asked: str, written_by: str, checks: dict[str, Any]) -> str:
    """A README in Markdown with the hub's header, from what the checks found."""
    written = domain.file.responses == "written"
    table = "\n".join(f"| {name} | {value} |" for name, value in _rows(config, checks, written=written))
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

- Questions: {_questions(config, domain)}
- Responses: {_responses(config, domain, written_by)}
- Users: {_users(config, checks)}
- Labels: {_judge(config, asked)}
- Seed {config.seed}. `people.json` has the descriptions before and after refinement, `undecided/` the pairs without a
  label and why, `checks.json` all figures.

## Licence of the sources

{domain.file.licence}{"" if written else " The responses are a language model's; its own licence may bind their use."}

## Limits

- Users and labels are synthetic. How far they stand for people is not known from this dataset.
- {_limit(config)}
- {"The texts were not checked against sources" if written else "The texts are a language model's"}, and may be wrong.
"""


def _rows(config: SynthesisConfig, checks: dict[str, Any], *, written: bool) -> list[tuple[str, str]]:
    """What the checks found, in the order of the card: what it is, and its value."""
    counts, labels, diversity, sampling = (checks[name] for name in ("counts", "labels", "diversity", "sampling"))
    texts = "" if written else f" from {sampling['used']:,} of {sampling['asked']:,} texts asked for"
    rows = [
        ("users", f"{counts['users']:,}"),
        ("questions", f"{counts['questions']:,}, {counts['seeds']:,} of them from the domain"),
        ("responses", f"{counts['responses']:,}{texts}"),
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
    for trait, reading in checks.get("readers", {}).items():
        rows.append((f"trait '{trait}' as read in answers", reading_in_words(reading)))
    for name, found in (
        ("texts not used as responses", sampling["rejected"]),
        ("pairs left undecided", labels["undecided"]),
        ("odd replies of the servers, over all calls", checks.get("replies", {})),
    ):
        if found:
            rows.append((name, ", ".join(f"{reason} {count:,}" for reason, count in found.items())))
    return rows


def reading_in_words(reading: Mapping[str, Any]) -> str:
    """How rightly a trait is read, on questions that its reader was not fitted on."""
    if not reading["pairs"]:
        return "not measured"
    use = "" if reading["ordered"] >= READABLE else "; too little to judge answers by it"
    return (
        f"right order in {reading['ordered']:.1%} of {reading['pairs']:,} held-out pairs, right value in "
        f"{reading['balanced']:.1%} of the texts{use}"
    )


def _questions(config: SynthesisConfig, domain: Domain) -> str:
    if not config.augment or domain.written:
        return "the domain's own only."
    return "those of the domain, and new ones by a language model shown a few of them; near-duplicates removed."


def _responses(config: SynthesisConfig, domain: Domain, written_by: str) -> str:
    if domain.file.responses == "written":
        traits = ", ".join(f"{name} ({trait.about})" for name, trait in domain.traits.items())
        return f"written, each to declared traits: {traits}. No language model was asked."
    by = f"by {written_by}, at most {config.max_tokens} tokens"
    if domain.file.responses == "restyled":
        names = ", ".join(domain.attributes(config.attributes))
        return f"sampled texts {by}, steered to praise or criticism, then changed by fixed rules in {names}."
    steering = {
        "none": "without steering",
        "persona": "steered by personas of the domain",
        "views": f"each from one of up to {config.views} viewpoints that were listed beforehand",
    }[config.steering]
    return f"{steering}, {by}."


def _users(config: SynthesisConfig, checks: dict[str, Any]) -> str:
    parts = ["portrayed by a language model from their traits" if config.portraits else "described by their traits"]
    refinement, casting = checks["refinement"], checks["casting"]
    if refinement["sentences"]:
        parts.append(f"{refinement['users']} of them extended by {refinement['sentences']} sentences in refinement")
    if casting["made_anew"]:
        parts.append(f"{casting['made_anew']} drawn again because of too little or too much disagreement")
    return ", ".join(parts) + "."


def _judge(config: SynthesisConfig, asked: str) -> str:
    if config.by_traits:
        what = "attributes of the text" if config.judge == "measured" else "declared traits of the text"
        noise = f" {config.label_noise:.0%} of the training labels are flipped." if config.label_noise else ""
        return f"{what}, weighted by the user's traits; closer than {config.margin:g} is no label.{noise}"
    return f"{asked}, shown the description and both responses, in both orders; kept where both agree."


def _limit(config: SynthesisConfig) -> str:
    if config.judge == "measured":
        return "A measured judge sees form and word choice, not truth or usefulness."
    if config.judge == "declared":
        return "The labels see the declared traits and nothing else of a text, such as truth or usefulness."
    return "The estimated accuracy takes errors in the two orders to be independent: one made in both is not seen."


def _before_after(entropy: dict[str, Any]) -> str:
    return f"{_shown(entropy['before'])} to {_shown(entropy['after'])}"


def _shown(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3f}"
