"""How likely answers are under the base model given the bare prompt: what fluency is measured by."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fspo.errors import ModelError
from fspo.evaluation.judges.win_rates import Answer
from fspo.identity import digest
from fspo.progress import Progress
from fspo.records import KeyedLog

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from fspo.modeling.rendering import EpisodeRenderer

__all__ = ["answer_log_probs"]

_TOGETHER = 8
"""Answers scored in one pass."""


@dataclass(frozen=True)
class Fluency:
    """How likely an answer is: its mean log-prob a token, in nats."""

    log_prob: float


def answer_log_probs(
    model: Callable[[], PreTrainedModel],
    renderer: EpisodeRenderer,
    answers: Sequence[Answer],
    *,
    path: Path,
    fingerprint: str,
    progress: Progress | None = None,
) -> list[float]:
    """The mean log-prob a token of each answer, in nats; of an empty one, that of saying nothing.

    The token that ends a turn is left out, since an answer may have been stopped before it.

    Args:
        model: gives the base model; not called where everything is known.
        renderer: of the context `none`.
        answers: what to score.
        path: gains one line an answer; a batch that is not whole in it is scored again, to the same values.
        fingerprint: identifies the base model.
        progress: shown once a batch.

    Raises:
        ModelError: a log-prob is not a finite number.
    """
    log = KeyedLog(path, Fluency)
    keys = [digest([fingerprint, renderer.identity, answer.prompt, answer.text]) for answer in answers]
    # Always the same batches, each scored whole: the last digits of a value depend on what else is in its batch.
    distinct = dict(zip(keys, answers, strict=True))

    def score(batch: Sequence[Answer]) -> Iterator[Fluency]:
        return map(Fluency, _score(model(), renderer, batch))

    log.complete(distinct, score, batch=_TOGETHER, title="Measuring fluency", progress=progress)
    return [log[key].log_prob for key in keys]


def _score(model: PreTrainedModel, renderer: EpisodeRenderer, answers: Sequence[Answer]) -> list[float]:
    import torch

    from fspo.modeling.logprobs import branch_logprobs
    from fspo.modeling.rendering import Branch, TokenizedEpisode

    branches = []
    trunk: tuple[int, ...] = ()
    for index, answer in enumerate(answers):
        asked = renderer.render_prompt((), answer.prompt)
        trunk, response = asked.trunk_ids, renderer.render_response(answer.text)
        branches.append(Branch(asked.prompt_ids, (response[:-1] or response,), len(trunk), 0, index))
    with torch.inference_mode():
        (result,) = branch_logprobs(model, [TokenizedEpisode(trunk, (len(trunk),), tuple(branches))])
    means: list[float] = result.means[:, 0].tolist()
    if not all(map(math.isfinite, means)):
        raise ModelError(
            "The base model's log-probs of the answers are not numbers; set evaluation.dtype to float32 or bfloat16."
        )
    return means
