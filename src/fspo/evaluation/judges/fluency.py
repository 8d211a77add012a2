"""How likely answers are under the base model given the bare prompt: what fluency is measured by."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fspo.errors import ModelError
from fspo.evaluation.judges.win_rates import Answer
from fspo.files import append_jsonl, read_jsonl
from fspo.identity import digest
from fspo.progress import Progress, Silent

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from fspo.modeling.rendering import EpisodeRenderer

__all__ = ["answer_log_probs"]

_TOGETHER = 8
"""Answers scored in one pass."""


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
    known: dict[str, float] = {line["key"]: line["log_prob"] for line in read_jsonl(path) if "log_prob" in line}
    keys = [digest([fingerprint, renderer.identity, answer.prompt, answer.text]) for answer in answers]
    # Always the same batches, each scored whole: the last digits of a value depend on what else is in its batch.
    distinct: list[tuple[str, Answer]] = list(dict(zip(keys, answers, strict=True)).items())
    batches = [distinct[start : start + _TOGETHER] for start in range(0, len(distinct), _TOGETHER)]
    with (progress or Silent()).task("Measuring fluency", total=len(distinct)) as task:
        for batch in batches:
            if not all(key in known for key, _ in batch):
                values = _score(model(), renderer, [answer for _, answer in batch])
                for (key, _), value in zip(batch, values, strict=True):
                    known[key] = value
                    append_jsonl(path, {"key": key, "log_prob": value})
            task.advance(len(batch))
    return [known[key] for key in keys]


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
