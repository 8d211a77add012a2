"""The domains of the FSPO paper (arXiv 2502.19312): users and questions that nobody was trained on.

Their data are made by `fspo synth` with the run's own model and measured attributes as the judge; the paper's data, by
its own judge, come from a hub or from files.
"""

from __future__ import annotations

from typing import Any

from fspo.evaluation.benchmarks.benchmark import Benchmark, Protocol, Rows

__all__ = ["DOMAINS"]

_ALL = (
    "The paper judges by a large language model that reads the user's description; without `data` a user here is a "
    "weighting of measured attributes, and the judge is that measurement.",
    "The paper's base model, and so the 50 that win rates are measured against, is Llama-3.2-3B-Instruct; here it is "
    "the run's own.",
    "The paper matches answers in length and format; look at `words` in metrics.json before comparing.",
)


def _domain(
    name: str, title: str, rows: Rows, protocol: Protocol, synthesis: dict[str, Any], *differences: str
) -> Benchmark:
    # Without the sentence embedder that only measures how alike the responses are.
    made = {"recipe": "paper", "domain": name, "augment": False, "judge": "measured", "meaning": False, **synthesis}
    return Benchmark(name, title, "win_rate", rows, protocol, (*_ALL, *differences), synthesis=made)


DOMAINS = (
    _domain(
        "reviews",
        "Reviews: films, series, anime and books",
        Rows("reviews", "hub:Asap7772/steered_reviews_full_autolabel_gpt4o_pref", group="interpolated"),
        Protocol(shots=8, queries=8, episodes=3, answers=None),
        {"questions": 96, "responses": 8, "max_tokens": 60, "pairs": 200, "shared_pairs": 24},
        "The four users between the axes are evaluated (the paper's `interpolated`), not the four trained ones.",
    ),
    _domain(
        "elix-easy",
        "ELIX-easy: explanations for five levels of education",
        Rows("elix", "hub:Asap7772/elix_generations_gpt4omini_pref", part="test"),
        Protocol(shots=8, queries=8, episodes=4, answers=None),
        {"questions": 60, "responses": 8, "max_tokens": 90, "pairs": 120, "shared_pairs": 24},
        "There are five users in all; here the level in the middle is held out: one user, and so no interval.",
    ),
    _domain(
        "elix-hard",
        "ELIX-hard: experts of one field, novices in the others",
        Rows("elix", "hub:Asap7772/elix_multexpert_preferences_gpt4o_pref", part="test"),
        Protocol(shots=8, queries=8, users=24, answers=None),
        {"questions": 220, "responses": 6, "max_tokens": 56, "pairs": 60, "shared_pairs": 24},
        "24 of the held-out users are evaluated.",
    ),
    _domain(
        "roleplay",
        "Roleplay: 1,500 people of age x gender x region",
        Rows("roleplay", "hub:sher222/persona-iterative-responses", part="test"),
        Protocol(shots=8, queries=8, users=24, answers=None),
        {
            "questions": 90,
            "responses": 8,
            "max_tokens": 64,
            "steering": "persona",
            "pairs": 60,
            "shared_pairs": 24,
            "disagreement": None,
        },
        "24 of the held-out users are evaluated.",
        "Responses are steered by personas here, by viewpoints in the paper.",
    ),
)
