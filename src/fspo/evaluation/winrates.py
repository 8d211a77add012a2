"""Win rates of a method's answers over the base model's, judged for the user in both orders.

Two samplings: `plain`, from the weights given the user's context; `guided`, pushed away from what the same weights
would say to the mirrored user. Answers and judgements are kept line by line, so that a killed run goes on where it
stopped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from fspo.evaluation.config import EvaluationConfig, Sampling
from fspo.evaluation.describing import Describer
from fspo.evaluation.quality import Floors, Quality
from fspo.evaluation.trials import Trial
from fspo.files import append_jsonl, read_jsonl
from fspo.modeling.rendering import Context
from fspo.preferences.types import User
from fspo.progress import Progress, Silent

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from fspo.modeling.rendering import EpisodeRenderer

__all__ = ["Answer", "Comparer", "Judgement", "Outcome", "decide", "draw_answers", "judge_both_orders", "judge_pairs"]

Outcome = Literal["win", "loss", "tie"]


class Comparer(Protocol):
    """Whoever says which of two answers a user prefers (`fspo.judging.judge.Judge`)."""

    def compare(self, user: User, prompt: str, a: str, b: str) -> Literal["a", "b", "tie"]:
        """Which answer `user` prefers."""


@dataclass(frozen=True)
class Answer:
    """One answer to one prompt of one trial."""

    method: str
    sampling: Sampling
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

    @property
    def score(self) -> float:
        """1 for a win, 0.5 for a tie, 0 for a loss."""
        return _SCORES[self.outcome]

    @property
    def judged_score(self) -> float:
        """The score as the judge alone would have it."""
        return _SCORES[self.judged]


_SCORES: Mapping[Outcome, float] = {"win": 1.0, "tie": 0.5, "loss": 0.0}


def judge_both_orders(judge: Comparer, user: User, prompt: str, answer: str, base: str) -> tuple[Outcome, bool]:
    """The judge's word on `answer` against `base`, and whether both orders agree; contradicting orders are a tie."""
    first = {"a": "win", "b": "loss", "tie": "tie"}[judge.compare(user, prompt, answer, base)]
    second = {"a": "loss", "b": "win", "tie": "tie"}[judge.compare(user, prompt, base, answer)]
    if first != second:
        return "tie", False
    return first, True  # type: ignore[return-value]


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
    progress: Progress | None = None,
) -> list[Judgement]:
    """Judge every answer against the base model's answer to the same item; all mappings are by item id.

    The judge's words are kept in `path`, one line an answer, for this judge and these users as they are; the floors are
    applied anew each time.
    """
    identity = _identity(judge)
    known = {line["key"]: line for line in read_jsonl(path) if "key" in line}
    judgements = []
    with (progress or Silent()).task("Judging answers", total=len(answers)) as task:
        for answer in answers:
            base = base_answers[answer.item]
            user = users[answer.user]
            person = json.dumps([user.id, user.description, sorted(user.traits.items())])
            key = _digest(identity, person, answer.prompt, answer.text, base.text)
            if key not in known:
                judged, consistent = judge_both_orders(judge, user, answer.prompt, answer.text, base.text)
                known[key] = {"key": key, "item": answer.item, "judged": judged, "consistent": consistent}
                append_jsonl(path, known[key])
            broken = floors.broken_by(qualities[answer.item])
            base_broken = floors.broken_by(base_qualities[answer.item])
            word: Outcome = known[key]["judged"]
            outcome = decide(word, broken, base_broken)
            agreed = bool(known[key]["consistent"])
            judgements.append(Judgement(answer.item, answer.user, word, outcome, agreed, broken, base_broken))
            task.advance(1)
    return judgements


def _identity(judge: Comparer) -> str:
    """What tells judges of different words apart: scales and margin where there are some, else a name or the class."""
    kind = f"{type(judge).__module__}.{type(judge).__qualname__}"
    if hasattr(judge, "scales"):
        scales = {name: list(scale) for name, scale in sorted(judge.scales.items())}
        return json.dumps([kind, scales, getattr(judge, "margin", None)])
    return f"{kind}/{getattr(judge, 'name', '')}/{getattr(judge, 'margin', '')}"


def draw_answers(
    model: Callable[[], PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
    renderer: EpisodeRenderer,
    context: Context,
    trials: Sequence[Trial],
    config: EvaluationConfig,
    *,
    method: str,
    sampling: Sampling,
    path: Path,
    fingerprint: str,
    describer: Describer | None = None,
    progress: Progress | None = None,
) -> list[Answer]:
    """Answer the first held-out prompts of every trial; answers already in `path` are taken from there.

    Batches are the same however often the run was interrupted, and each answer has its own seed: so are the answers.
    """
    asked = _asked(trials, config)
    known = {line["key"]: line for line in read_jsonl(path) if line.keys() >= set(Answer.__dataclass_fields__)}
    settings = _settings(fingerprint, context, sampling, config) + (describer.key if describer else "")
    batches = [asked[i : i + config.answer_batch] for i in range(0, len(asked), config.answer_batch)]
    answers: list[Answer] = []
    with (progress or Silent()).task(f"Answering, {method} {sampling}", total=len(asked)) as task:
        for number, batch in enumerate(batches):
            keys = [_digest(settings, trial.key, item, prompt, number) for trial, item, prompt in batch]
            if not all(key in known for key in keys):
                drawn = _generate(
                    model(), tokenizer, renderer, batch, config, f"{method}/{sampling}", sampling, describer
                )
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
            if len(prompts) < config.answers and query.prompt not in prompts:
                prompts.add(query.prompt)
                chosen.append((trial, trial.item(number), query.prompt))
    return chosen


def _generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    renderer: EpisodeRenderer,
    batch: Sequence[_Asked],
    config: EvaluationConfig,
    salt: str,
    sampling: Sampling,
    describer: Describer | None,
) -> list[tuple[str, int, bool]]:
    """The texts, how many shots had to be left out for each, and whether it was ended by the model."""
    from fspo.modeling import generation

    requests, dropped = [], []
    for trial, item, prompt in batch:
        shots, described, mirrored = trial.own.shots, trial.own.description, None
        if describer is not None:
            described, mirrored = describer(shots), describer([shot.swap() for shot in shots])
        asked = renderer.render_prompt(
            shots, prompt, described, mirror_description=mirrored, reserve=config.max_new_tokens
        )
        seed = int(_digest(salt, item), 16) % 2**31
        requests.append(generation.AnswerRequest(asked.trunk_ids, asked.prompt_ids, asked.mirror_trunk_ids, seed))
        dropped.append(asked.dropped_shots)
    settings = generation.Sampling(
        config.max_new_tokens,
        config.temperature,
        config.top_p,
        config.guidance if sampling == "guided" else 0.0,
        config.plausibility,
        generation.end_tokens(tokenizer),
    )
    answers = generation.generate_ids(model, requests, settings, seed=config.seed, batch_size=len(batch))
    texts = (generation.decode_answer(tokenizer, answer) for answer in answers)
    return list(zip(texts, dropped, (answer.finished for answer in answers), strict=True))


def _settings(fingerprint: str, context: Context, sampling: Sampling, config: EvaluationConfig) -> str:
    drawn = [
        config.seed,
        config.max_new_tokens,
        config.temperature,
        config.top_p,
        config.answer_batch,
        config.max_length,
    ]
    if sampling == "guided":
        drawn += [config.guidance, config.plausibility]
    return json.dumps([fingerprint, context, sampling, *drawn])


def _answer(line: Mapping[str, Any]) -> Answer:
    return Answer(**{name: line[name] for name in Answer.__dataclass_fields__})


def _digest(*parts: object) -> str:
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()[:16]
