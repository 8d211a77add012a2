"""The stages of synthesis in order: questions, samples, responses, users, labels, splits, checks.

What comes to lie in the folder: `samples.jsonl` (raw texts, as they come), `responses.jsonl`, `judge.json`, the dataset
(`users.parquet`, `preferences.parquet`, `dataset.json`), `checks.json`, `synthesis.json`, which says what configuration
and model all of it belongs to, and last `splits.json`. Running again goes on from there.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path

from fspo.errors import DataError
from fspo.files import check_unclaimed, write_json, write_text
from fspo.judging.judge import AttributeJudge
from fspo.llm.types import LanguageModel
from fspo.preferences.dataset import DATASET, PreferenceDataset
from fspo.preferences.splits import Splits
from fspo.preferences.types import Split, User
from fspo.progress import Progress, Silent
from fspo.synthesis.config import usual_settings
from fspo.synthesis.origin import Origin, refuse_finished
from fspo.synthesis.restyled.checks import check
from fspo.synthesis.restyled.config import RestyledConfig, held_out_of
from fspo.synthesis.restyled.domain import load_domain
from fspo.synthesis.restyled.labels import label_all
from fspo.synthesis.restyled.responses import Responses, make_responses
from fspo.synthesis.restyled.samples import Question, plan_questions, plan_samples, sample_all
from fspo.synthesis.restyled.users import AXIS, make_users

__all__ = ["is_complete", "origin_of", "split_synthetic", "synthesize"]

_SAMPLES, _RESPONSES, _JUDGE, _SPLITS, _CHECKS, _IDENTITY = (
    "samples.jsonl",
    "responses.jsonl",
    "judge.json",
    "splits.json",
    "checks.json",
    "synthesis.json",
)


def synthesize(
    config: RestyledConfig, llm: LanguageModel, out: str | Path, progress: Progress | None = None
) -> PreferenceDataset:
    """Make synthetic users and preferences in the folder `out`, going on from what is there.

    The result is a function of the configuration and the model; an interrupted run gives the same as one that was not.

    Returns:
        The whole dataset; `splits.json` says what is trained on and what is held out.

    Raises:
        ConfigError: more works or questions are asked for than the domain has, or the folder holds a finished dataset
            of another origin.
        DataError: the model's texts were too poor to make a dataset of.
        StorageError: the folder can't be written.
    """
    out, progress = Path(out), progress or Silent()
    origin = origin_of(config, llm)
    if is_complete(out, origin):
        return PreferenceDataset.load(out)
    results = (*DATASET.needs, *DATASET.may, _RESPONSES, _JUDGE, _CHECKS)
    check_unclaimed(out, (_SAMPLES, _IDENTITY), results)
    refuse_finished(out, out / _SPLITS, origin.compared(out / _IDENTITY) if (out / _IDENTITY).exists() else None)
    (out / _SPLITS).unlink(missing_ok=True)
    domain = load_domain(config.domain)
    questions = plan_questions(config, domain)
    samples = plan_samples(config, domain, questions)
    completions = sample_all(samples, llm, out / _SAMPLES, batch=config.batch, progress=progress)
    responses = make_responses(config, domain, samples, completions)
    _refuse_poor(responses, config)
    write_text(out / _RESPONSES, "".join(json.dumps(r.record(), ensure_ascii=False) + "\n" for r in responses.items))
    judge = AttributeJudge.fit((r.text for r in responses.items), config.attributes, config.margin)
    judge.save(out / _JUDGE)
    users = make_users(config.attributes, domain.noun, config.seed)
    labels = label_all(config, users, responses.by_question(), judge, progress)
    dataset = PreferenceDataset(users, labels.preferences)
    dataset.save(out)
    write_json(out / _CHECKS, check(config, len(samples), responses, users, labels, judge))
    write_json(out / _IDENTITY, origin.record())
    split_synthetic(config, users, questions, dataset.questions()).save(out / _SPLITS)
    progress.say(_summary(dataset, responses, len(samples)))
    return dataset


def origin_of(config: RestyledConfig, model: LanguageModel) -> Origin:
    """What decides the dataset; of the model, name and identity are enough."""
    settings = config.model_dump(mode="json", exclude={"recipe"})
    return Origin({"config": settings}, model, model, usual={"config": usual_settings(config)})


def is_complete(out: Path, origin: Origin) -> bool:
    """Whether the folder holds the finished data of this origin."""
    if not (out / _SPLITS).exists() or not (out / _IDENTITY).exists():
        return False
    return bool(origin.compared(out / _IDENTITY))


def split_synthetic(
    config: RestyledConfig, users: Sequence[User], questions: Iterable[Question], used: Iterable[str]
) -> Splits:
    """Hold out whole works, and the users between the axes.

    Args:
        config: shares, and how many interpolated users are trained on all the same.
        users: all users.
        questions: all questions.
        used: ids of the questions that have preferences; the others belong to no split.
    """
    rng = random.Random(f"{config.seed}/splits")
    used = set(used)
    works: dict[str, set[str]] = {}
    for question in questions:
        if question.id in used:
            works.setdefault(question.work.id, set()).add(question.id)
    parts = _divide(sorted(works), config, rng)
    between = [user.id for user in users if user.group != AXIS]
    rng.shuffle(between)
    trained, rest = between[: config.trained_pairs], between[config.trained_pairs :]
    validated = round(config.validation * len(rest))
    return Splits(
        users={
            "train": frozenset(trained) | {user.id for user in users if user.group == AXIS},
            "validation": frozenset(rest[:validated]),
            "test": frozenset(rest[validated:]),
        },
        questions={split: frozenset().union(*(works[work] for work in own)) for split, own in parts.items()},
    )


def _divide(works: list[str], config: RestyledConfig, rng: random.Random) -> dict[Split, list[str]]:
    rng.shuffle(works)
    # Fewer works than were planned may have pairs.
    tested, validated = held_out_of(config.held_out, config.validation, len(works))
    tested = max(1, min(tested, len(works) - 1))
    validated = max(0, min(validated, len(works) - tested - 1))
    return {
        "test": works[:tested],
        "validation": works[tested : tested + validated],
        "train": works[tested + validated :],
    }


def _refuse_poor(responses: Responses, config: RestyledConfig) -> None:
    answered = sum(len(own) >= 2 for own in responses.by_question().values())
    wanted = config.titles * config.questions
    if answered < max(3, wanted // 3):
        worst = ", ".join(f"{reason} ({count})" for reason, count in responses.rejected.most_common(3))
        raise DataError(
            f"Only {answered} of {wanted} questions got two usable responses; texts were rejected for: "
            f"{worst or 'none'}. Raise synthesis.samples, lower synthesis.temperature, or use a better model."
        )


def _summary(dataset: PreferenceDataset, responses: Responses, asked: int) -> str:
    used = len({item.sample for item in responses.items})
    return (
        f"{len(dataset)} preferences of {len(dataset.users)} users on {len(responses.items)} responses to "
        f"{len(dataset.questions())} questions, from {used} of {asked} sampled texts."
    )
