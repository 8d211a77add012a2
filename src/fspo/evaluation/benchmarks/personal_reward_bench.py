"""PersonalRewardBench (Ryan et al., arXiv 2506.05598): pairs of Chatbot Arena and of PRISM, by user.

Each row says in `split` which of its user's pairs it is: `train` and `val` may be shown, `test` is asked.
"""

from __future__ import annotations

from fspo.evaluation.benchmarks.benchmark import Benchmark, Protocol, Rows

__all__ = ["ARENA", "PRISM"]

_PROTOCOL = Protocol(shots=3, parted=True)
"""Three pairs are what P-GenRM is shown (arXiv 2602.12116, appendix A.10)."""

_DIFFERENCES = (
    "A prompt here is one message: rows with turns before the question are left out, which the published figures hold.",
    "3 shots of each user, which is what P-GenRM is shown; how many the other rows were shown, their papers say.",
    "Accuracy is over pairs, users pooled, with an interval clustered by user; published errors are standard errors "
    "over 5 runs.",
    "The published fine-tuned reward models were trained on data of the benchmark, a run's policies on the run's own.",
)

ARENA = Benchmark(
    "reward-bench-arena",
    "PersonalRewardBench, Chatbot Arena",
    "reward_accuracy",
    Rows("reward-bench", "hub:MichaelR207/chatbot_arena_personalized_0125"),
    _PROTOCOL,
    _DIFFERENCES,
    users=131,
)

PRISM = Benchmark(
    "reward-bench-prism",
    "PersonalRewardBench, PRISM",
    "reward_accuracy",
    Rows("reward-bench", "hub:MichaelR207/prism_personalized_0125"),
    _PROTOCOL,
    _DIFFERENCES,
    users=723,
)
