"""How the log-probabilities of a response's tokens become the log-probability that a reward is made of."""

from __future__ import annotations

from typing import Literal

__all__ = ["Reduction"]

Reduction = Literal["sum", "mean", "discounted"]
"""`sum` over the tokens is the convention of the papers (arXiv 2305.18290, 2310.12036, 2502.19312); `mean`, per token,
is what TRL takes for IPO. `discounted` is the sum in which the t-th token counts 1 / sqrt(t): the beginning of a
response shows its style, so the shots tell less about each later token.

A beta does not carry over: beta for means is about beta for sums times the response length.
"""
