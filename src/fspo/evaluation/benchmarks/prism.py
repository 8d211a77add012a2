"""PRISM's own utterances (Kirk et al., arXiv 2404.16019): 1,500 people choose among the answers of several models."""

from __future__ import annotations

from fspo.evaluation.benchmarks.benchmark import Benchmark, Protocol, Rows

__all__ = ["UTTERANCES"]

UTTERANCES = Benchmark(
    "prism",
    "PRISM, first turns of all conversations",
    "reward_accuracy",
    Rows("prism", "hub:HannahRoseKirk/prism-alignment/utterances.jsonl"),
    # A person has six conversations at most, each with up to three pairs on its first turn.
    Protocol(shots=4, queries=4),
    (
        "PRISM was published without a protocol for reward models, so this one is ours: the chosen answer against each "
        "other one of a conversation's first turn, 4 pairs shown and 4 of other conversations asked.",
        "Figures on PRISM that others report are on other pairs (all turns, pairs by score, or filtered as in "
        "PersonalRewardBench) and are not put beside ours.",
    ),
)
