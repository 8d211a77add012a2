"""PersonalLLM (Zollo et al., arXiv 2409.20296): simulated users, each a weighting of ten reward models."""

from __future__ import annotations

from fspo.evaluation.benchmarks.benchmark import Benchmark, Protocol, Rows
from fspo.preferences.published import Drawn

__all__ = ["PERSONAL_LLM"]

PERSONAL_LLM = Benchmark(
    "personal-llm",
    "PersonalLLM, 20 unseen simulated users",
    "reward_accuracy",
    # 20 unseen users, 1,000 samples and 4 pairs shown: the protocol of the figures beside ours (their appendix H).
    Rows("personal-llm", "hub:namkoong-lab/PersonalLLM", part="test", drawn=Drawn(users=20, seed=2409)),
    Protocol(shots=4, queries=50),
    (
        "The published figures are over 1,000 samples of 100 users seen in training and 1,000 of 20 unseen ones; here "
        "all 20 users are unseen.",
        "Shots here are of any other test prompts; there they are of one pool of 100 pairs kept for that.",
        "Users weigh the reward models by a Dirichlet draw of concentration 0.05; the source does not say its own.",
        "The published figures are of reward models fine-tuned on the benchmark's own training users.",
        "PersonalLLM's paper measures generated answers by the users' rewards, which is not measured here.",
    ),
)
