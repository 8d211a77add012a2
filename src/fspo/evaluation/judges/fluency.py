"""How likely answers are under the base model given the bare prompt: what fluency is measured by."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fspo.errors import ModelError
from fspo.evaluation.judges.win_rates import Answer
from fspo.evaluation.scoring.weights import LoadableModel
from fspo.identity import digest
from fspo.preferences.types import Turn
from fspo.progress import Progress
from fspo.records import KeyedLog

__all__ = ["Fluency", "answer_log_probs", "fluency_key"]

_TOGETHER = 8
"""Answers scored in one pass."""


@dataclass(frozen=True)
class Fluency:
    """How likely an answer is: its mean log-prob a token, in nats."""

    log_prob: float


def answer_log_probs(
    model: LoadableModel,
    answers: Sequence[Answer],
    *,
    conversations: Mapping[str, Sequence[Turn]],
    path: Path,
    progress: Progress | None = None,
) -> list[float]:
    """The mean log-prob a token of each answer, in nats; of an empty one, that of saying nothing.

    `model` is the base model, shown nothing of a user, and `conversations` has the turns of the prompts that are
    conversations, by their transcripts. The token that ends a turn is left out, since an answer may have
    been stopped before it. A batch that is not whole in `path` is scored again, to the same values.

    Raises:
        ModelError: a log-prob is not a finite number.
    """
    log = KeyedLog(path, Fluency)
    keys = [fluency_key(model, answer, conversations.get(answer.prompt, ())) for answer in answers]
    # Always the same batches, each scored whole: the last digits of a value depend on what else is in its batch.
    distinct = dict(zip(keys, answers, strict=True))

    def score(batch: Sequence[Answer]) -> Iterator[Fluency]:
        return map(Fluency, _score(model, [(conversations.get(a.prompt, a.prompt), a.text) for a in batch]))

    log.complete(distinct, score, batch=_TOGETHER, title="Measuring fluency", progress=progress)
    return [log[key].log_prob for key in keys]


def fluency_key(model: LoadableModel, answer: Answer, turns: Sequence[Turn] = ()) -> str:
    """The key of an answer's fluency in its log; `turns` are those of the conversation, where the prompt is one."""
    prompt = [[turn.role, turn.text] for turn in turns] or answer.prompt
    return digest([model.fingerprint, model.renderer.identity, prompt, answer.text])


def _score(model: LoadableModel, answered: Sequence[tuple[str | Sequence[Turn], str]]) -> list[float]:
    """The log-probs of answers, each with the prompt before it."""
    import torch

    from fspo.modeling.logprobs import branch_logprobs
    from fspo.modeling.rendering import Branch, TokenizedEpisode, common_beginning

    prompts = [model.renderer.render_prompt((), prompt) for prompt, _ in answered]
    trunk = prompts[0].trunk_ids
    # A conversation may begin with a system message of its own.
    trunk = trunk[: min(common_beginning(trunk, asked.trunk_ids) for asked in prompts)]
    branches = []
    for index, (asked, (_, text)) in enumerate(zip(prompts, answered, strict=True)):
        response = model.renderer.render_response(text)
        prompt_ids = (*asked.trunk_ids[len(trunk) :], *asked.prompt_ids)
        branches.append(Branch(prompt_ids, (response[:-1] or response,), len(trunk), 0, index))
    with torch.inference_mode():
        (result,) = branch_logprobs(model.load(), [TokenizedEpisode(trunk, (len(trunk),), tuple(branches))])
    means: list[float] = result.means[:, 0].tolist()
    if not all(map(math.isfinite, means)):
        raise ModelError(
            "The base model's log-probs of the answers are not numbers; set evaluation.dtype to float32 or bfloat16."
        )
    return means
