"""Win rates of a method's answers over the base model's, judged for the user in both orders.

Two samplings: `plain`, from the weights given the user's context; `guided`, pushed away from what the same weights
would say to the mirrored user. Answers and judgements are kept line by line, so that a killed run goes on where it
stopped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fspo.evaluation.config import EvaluationConfig, Floors
from fspo.evaluation.judges.answer_quality import Quality, broken_floors
from fspo.evaluation.judges.judgement_store import Comparer, Outcome, Pair, annotate
from fspo.evaluation.scoring.descriptions import Describer
from fspo.evaluation.scoring.eval_episodes import Trial
from fspo.files import append_jsonl, read_jsonl
from fspo.modeling.rendering import Context
from fspo.preferences.types import User
from fspo.preferences.wording import wording
from fspo.progress import Progress, Silent

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from fspo.modeling.rendering import EpisodeRenderer

__all__ = ["Answer", "AnswerKey", "Comparer", "Judgement", "Outcome", "decide", "draw_answers", "judge_pairs"]


AnswerKey = tuple[str, str]
"""A method and how its answers were drawn: a sampling, with `@k` behind it where only the first k shots were shown."""


@dataclass(frozen=True)
class Answer:
    """One answer to one prompt of one trial."""

    method: str
    sampling: str
    item: str
    user: str
    prompt: str
    text: str
    dropped_shots: int = 0
    """Shots left out of the context because they and the answer had no room."""
    finished: bool = True
    """Whether the model ended its answer, rather than running into `max_new_tokens`."""


@dataclass(frozen=True)
class Judgement:
    """What the judge made of a method's answer against the base model's, and how that came about."""

    item: str
    user: str
    judged: Outcome
    """The judge's word alone, in both orders; a tie where the orders contradict each other."""
    outcome: Outcome
    """The same after the floors."""
    consistent: bool
    """Whether both orders agreed."""
    broken: tuple[str, ...]
    """The floors that the method's answer falls below."""
    base_broken: tuple[str, ...]
    reject: str = ""
    """Why the judge gave no word, `unreadable`, `reasoning` or `refused`; empty where it gave one."""
    preference: float | None = None
    """The probability that the method's answer is preferred, from a judge that weighs."""
    unweighed: int = 0
    """Orders, of two, in which such a judge had no log-probs to go by."""
    used_up: str = ""
    """The limit that the judge's reasoning used up, in words, if it did."""

    @property
    def decided(self) -> bool:
        """Whether the outcome counts: the judge or the floors gave one."""
        return not self.reject or bool(self.broken) != bool(self.base_broken)

    @property
    def score(self) -> float:
        """1 for a win, 0.5 for a tie, 0 for a loss."""
        return _SCORES[self.outcome]

    @property
    def judged_score(self) -> float:
        """The score as the judge alone would have it."""
        return _SCORES[self.judged]

    @property
    def degree(self) -> float | None:
        """How far the answer was preferred: the probability if the judge weighs, else the score; None for a reject.

        Where a floor is broken, that decides.
        """
        if self.preference is not None and not self.broken and not self.base_broken:
            return self.preference
        return self.score if self.decided else None


_SCORES: Mapping[Outcome, float] = {"win": 1.0, "tie": 0.5, "loss": 0.0}


def decide(judged: Outcome, broken: Sequence[str], base_broken: Sequence[str]) -> Outcome:
    """The judge's word after the floors: whoever alone falls below one loses; if both do, it is a tie."""
    if broken and base_broken:
        return "tie"
    if broken:
        return "loss"
    return "win" if base_broken else judged


def judge_pairs(
    judge: Comparer,
    users: Mapping[str, User],
    answers: Sequence[Answer],
    base_answers: Mapping[str, Answer],
    qualities: Mapping[str, Quality],
    base_qualities: Mapping[str, Quality],
    floors: Floors,
    *,
    path: Path,
    name: str = "",
    progress: Progress | None = None,
) -> list[Judgement]:
    """Judge every answer against the base model's answer to the same item; all mappings are by item id.

    The judge's words are kept in `path`, one line an answer, for this judge and these users as they are; the floors are
    applied anew each time.

    Raises:
        ModelError: the judge failed; what it said before is kept.
    """
    pairs = [Pair(a.item, users[a.user], a.prompt, a.text, base_answers[a.item].text) for a in answers]
    found = []
    for answer, said in zip(answers, annotate(judge, pairs, path=path, name=name, progress=progress), strict=True):
        broken = broken_floors(qualities[answer.item], floors)
        base_broken = broken_floors(base_qualities[answer.item], floors)
        outcome = decide(said.judged, broken, base_broken)
        judgement = Judgement(answer.item, answer.user, said.judged, outcome, said.consistent, broken, base_broken)
        found.append(
            replace(
                judgement,
                reject=said.reject,
                preference=said.preference,
                unweighed=said.unweighed,
                used_up=said.used_up,
            )
        )
    return found


def draw_answers(
    model: Callable[[], PreTrainedModel],
    renderer: EpisodeRenderer,
    context: Context,
    trials: Sequence[Trial],
    config: EvaluationConfig,
    *,
    method: str,
    sampling: str,
    path: Path,
    fingerprint: str,
    describer: Describer | None = None,
    progress: Progress | None = None,
) -> list[Answer]:
    """Answer the first held-out prompts of every trial; answers already in `path` are taken from there.

    A `sampling` may say by `@k` how many shots the trials hold; it is drawn with the random numbers of the full one.

    Batches are the same however often the run was interrupted, and each answer has its own seed: so are the answers.
    """
    asked = _asked(trials, config)
    known = {line["key"]: line for line in read_jsonl(path) if line.keys() >= set(Answer.__dataclass_fields__)}
    shown = f"{fingerprint}/{renderer.identity}"
    settings = _settings(shown, context, sampling, config) + (describer.key if describer else "")
    batches = [asked[i : i + config.answer_batch] for i in range(0, len(asked), config.answer_batch)]
    answers: list[Answer] = []
    with (progress or Silent()).task(f"Answering, {method} {sampling}", total=len(asked)) as task:
        for number, batch in enumerate(batches):
            keys = [_digest(settings, trial.key, item, prompt, number) for trial, item, prompt in batch]
            if not all(key in known for key in keys):
                salt = f"{method}/{sampling.partition('@')[0]}"
                drawn = _generate(model(), renderer, batch, config, salt, sampling, describer)
                for key, (trial, item, prompt), (text, dropped, finished) in zip(keys, batch, drawn, strict=True):
                    answer = Answer(method, sampling, item, trial.user, prompt, text, dropped, finished)
                    known[key] = asdict(answer) | {"key": key}
                    append_jsonl(path, known[key])
            answers += [_answer(known[key]) for key in keys]
            task.advance(len(batch))
    return answers


_Asked = tuple[Trial, str, str]
"""A trial, the id of an item and its prompt."""


def _asked(trials: Iterable[Trial], config: EvaluationConfig) -> list[_Asked]:
    """Prompts of each user, chosen by a digest, so that users answer the same ones where they can."""
    chosen: list[_Asked] = []
    seen: dict[str, set[str]] = {}
    for trial in trials:
        prompts = seen.setdefault(trial.user, set())
        for number, query in sorted(
            enumerate(trial.own.queries), key=lambda query: _digest(config.seed, query[1].prompt)
        ):
            if len(prompts) < config.answers and wording(query.prompt) not in prompts:
                prompts.add(wording(query.prompt))
                chosen.append((trial, trial.item(number), query.prompt))
    return chosen


def _generate(
    model: PreTrainedModel,
    renderer: EpisodeRenderer,
    batch: Sequence[_Asked],
    config: EvaluationConfig,
    salt: str,
    sampling: str,
    describer: Describer | None,
) -> list[tuple[str, int, bool]]:
    """The texts, how many shots had to be left out for each, and whether it was ended by the model."""
    from fspo.modeling.answering import Prompt, answer
    from fspo.modeling.generation import Sampling

    prompts = []
    for trial, item, prompt in batch:
        shots, described, mirrored = trial.own.shots, trial.own.description, None
        if describer is not None:
            described, mirrored = describer(shots), describer([shot.swap() for shot in shots])
        prompts.append(Prompt(prompt, shots, described, mirrored, seed=int(_digest(salt, item), 16) % 2**31))
    settings = Sampling(
        config.max_new_tokens,
        config.temperature,
        config.top_p,
        config.guidance if _guided(sampling) else 0.0,
        config.plausibility,
    )
    replies = answer(model, renderer, prompts, settings, seed=config.seed, batch_size=len(batch))
    return [(reply.text, reply.dropped_shots, reply.finished) for reply in replies]


def _guided(sampling: str) -> bool:
    return sampling.partition("@")[0] == "guided"


def _settings(fingerprint: str, context: Context, sampling: str, config: EvaluationConfig) -> str:
    drawn = [
        config.seed,
        config.max_new_tokens,
        config.temperature,
        config.top_p,
        config.answer_batch,
        config.max_length,
    ]
    if _guided(sampling):
        drawn += [config.guidance, config.plausibility]
    return json.dumps([fingerprint, context, sampling, *drawn])


def _answer(line: Mapping[str, Any]) -> Answer:
    return Answer(**{name: line[name] for name in Answer.__dataclass_fields__})


def _digest(*parts: object) -> str:
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()[:16]
