"""The paper's recipe from questions to a dataset; every stage leaves its files in the dataset's folder.

`questions.jsonl`, `views.jsonl` (steering by views), `responses.jsonl`, `judge.json` (measured judge), `people.json`,
`labels/` and `undecided/` (a file for each shard of users), the dataset (`users.parquet`, `preferences.parquet`,
`dataset.json`), `checks.json`, `README.md` (its card), `synthesis.json`, and last `splits.json`. Answers of language
models are kept by whoever asks them (`fspo.llm.cache`), so that a killed call goes on from there and nothing is asked
twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fspo.errors import DataError
from fspo.files import check_unclaimed, write_json, write_text
from fspo.judging.verdicts import OrderTally
from fspo.llm.types import Completion, LanguageModel, replies_of, title_of
from fspo.preferences.dataset import DATASET, write_dataset
from fspo.preferences.splits import Splits
from fspo.preferences.types import Split
from fspo.progress import Progress
from fspo.synthesis.config import usual_settings
from fspo.synthesis.origin import Origin, difference, refuse_finished
from fspo.synthesis.recipe.card import dataset_card
from fspo.synthesis.recipe.casting import Cast, Casting
from fspo.synthesis.recipe.checks import check
from fspo.synthesis.recipe.config import RecipeConfig
from fspo.synthesis.recipe.domain import RecipeDomain, load_recipe_domain
from fspo.synthesis.recipe.executors import Executor, Here
from fspo.synthesis.recipe.judges import Judging, by_measures, measured_judge, pairwise_judge
from fspo.synthesis.recipe.kept import (
    JUDGE,
    QUESTIONS,
    RESPONSES,
    UNFINISHED,
    VIEWS,
    failed_stages,
    load_questions,
    load_responses,
    read_headed,
    write_stage,
)
from fspo.synthesis.recipe.labels import LABELS, UNDECIDED, label_all, preferences_of
from fspo.synthesis.recipe.pairs import pairs_of
from fspo.synthesis.recipe.people import Place, places_of, split_users
from fspo.synthesis.recipe.questions import Question, Questions, make_questions
from fspo.synthesis.recipe.responses import Response, Responses, make_responses, make_views
from fspo.synthesis.recipe.shards import Labeller, Person, Work

__all__ = ["is_complete", "make_dataset", "origin_of"]

_ENOUGH = 100
"""Shared pairs, over all users, that a judge's worth can be told from."""
_IDENTITY, _BEGUN, _SPLITS, _PEOPLE = "synthesis.json", "begun.json", "splits.json", "people.json"
_FAILED = Completion("", 0, "failed").missing
_PROMPTS = 2
"""Version of how the prompts are put together. 1: other people's texts stand in them without quotation."""
_ADVICE = {
    "inconsistent": "A judge that goes by the order of the responses decides nothing: use another model.",
    "unclear": "Descriptions of users that tell more, or responses that differ more, can be decided.",
    "unreadable": 'The judge has to answer with {"preferred": "A"}, "B" or "unclear": look at the prompt judge, or use '
    "another model. Once it is repaired, --on-existing overwrite asks again what could not be read and nothing else.",
    "reasoning": "The limit was used up by reasoning: raise synthesis.judge_max_tokens, or switch reasoning off "
    "(endpoint.extra_body).",
    "failed": "The endpoint failed on what it was shown: look at its log, or use another. The same command asks again.",
    "refused": "The endpoint refuses what it is shown: use another model, or other questions.",
}
"""Reason that most pairs were left for -> what to do, where a language model judges."""


def make_dataset(
    config: RecipeConfig,
    ask: LanguageModel,
    write: LanguageModel,
    out: Path,
    progress: Progress,
    executor: Executor | None = None,
) -> Path:
    """Make the dataset in `out`, going on from what is there.

    Args:
        config: stages and amounts.
        ask: writes questions, viewpoints, portraits and sentences of descriptions, and judges.
        write: writes the responses; may be `ask` itself, or an ensemble.
        out: the folder.
        progress: shows how far it is.
        executor: who labels; by default this process. It decides nothing in the dataset.

    Returns:
        The folder.

    Requests that failed are counted, and the dataset is made without them. A later call asks them again, as long as the
    dataset is not finished.

    Raises:
        ConfigError: more users are asked for than the domain has, or the folder holds a finished dataset of another
            origin.
        DataError: the domain is wrong, or what the models wrote was too poor to make a dataset of.
        ModelError: a model failed; what it has answered is kept.
        StorageError: the folder can't be written.
    """
    domain = load_recipe_domain(config.domain)
    places = places_of(config, domain)  # what is wrong with users is told before anybody is asked
    origin = origin_of(config, domain, ask, write)
    if is_complete(out, origin):
        return out
    _begin(out, origin, progress)
    questions = _questions(config, domain, ask, out, progress)
    responses = _responses(config, domain, questions.items, ask, write, out, progress)
    pairs, question_parts = pairs_of(config, domain, questions.items, responses.items)
    user_parts = split_users(config, places)
    judging = _judging(config, domain, questions.items, responses.items, ask, out)
    cast = Casting(config, domain, pairs, user_parts, judging, ask, progress).cast(places)
    write_json(out / _PEOPLE, _people(cast))
    _refuse_undecided(config, cast.order)
    labeller = Labeller(Work(config, domain, out), pairs, judging)
    counts = label_all(_to_label(cast, places, user_parts), labeller, executor or Here(), progress)
    _refuse(config, counts.decided, counts.asked, counts.order)
    by_id = {question.id: question for question in questions.items}
    by_response = {response.id: response for response in responses.items}
    write_dataset(out, cast.users, preferences_of(config, domain.name, by_id, by_response, out))
    rows = preferences_of(config, domain.name, by_id, by_response, out)
    checks = check(config, domain, questions, responses, cast, counts, rows) | {"replies": replies_of(ask, write)}
    write_json(out / "checks.json", checks)
    write_text(out / "README.md", dataset_card(config, domain, title_of(ask), title_of(write), checks))
    write_json(out / _IDENTITY, origin.record())
    (out / UNFINISHED).unlink(missing_ok=True)
    _save_splits(user_parts, question_parts, out)
    progress.say(_summary(checks))
    return out


def origin_of(config: RecipeConfig, domain: RecipeDomain, ask: LanguageModel, write: LanguageModel) -> Origin:
    """What decides the dataset; of the models, names and identities are enough."""
    settings = config.model_dump(mode="json", exclude={"batch", "domain"})
    made_of = {"name": domain.name, "sha256": domain.fingerprint}
    decided = {"config": settings, "domain": made_of, "prompts": _PROMPTS}
    return Origin(decided, ask, write, usual={"config": usual_settings(config)})


def is_complete(out: Path, origin: Origin) -> bool:
    """Whether the folder holds the finished dataset of this origin."""
    if not (out / _SPLITS).exists() or not (out / _IDENTITY).exists():
        return False
    return bool(origin.compared(out / _IDENTITY))


def _begin(out: Path, origin: Origin, progress: Progress) -> None:
    """Keep the stages of an interrupted call with the same origin, as far as no request failed; remove any others.

    Raises:
        ConfigError: the folder holds a finished dataset of another origin, or files of the same names that no call has
            left there.
    """
    stages = (QUESTIONS, VIEWS, RESPONSES, JUDGE, _PEOPLE, LABELS, UNDECIDED)
    results = (*DATASET.needs, *DATASET.may, "checks.json", "README.md")
    check_unclaimed(out, (_BEGUN, _IDENTITY), (*stages, *results))
    refuse_finished(out, out / _SPLITS, origin.compared(out / _IDENTITY) if (out / _IDENTITY).exists() else None)
    (out / _SPLITS).unlink(missing_ok=True)
    found = origin.compared(out / _BEGUN) if (out / _BEGUN).exists() else None
    if found:
        if failed := failed_stages(out):
            _remove(out, failed)
        return
    if found is not None:
        progress.say(f"The unfinished data in {out} were made {difference(found)}; they are made anew.")
    _remove(out, (QUESTIONS, VIEWS, RESPONSES, JUDGE, _PEOPLE, UNFINISHED, _BEGUN))
    write_json(out / _BEGUN, origin.record())


def _remove(out: Path, stages: Sequence[str]) -> None:
    """Remove these stages, the last one first, and before them the labels, which rest on all of them."""
    for folder in (LABELS, UNDECIDED):
        for shard in (out / folder).glob("[0-9]*.json*"):
            shard.unlink(missing_ok=True)
        with suppress(OSError):  # files of others stay
            (out / folder).rmdir()
    for name in reversed(stages):
        (out / name).unlink(missing_ok=True)


def _questions(
    config: RecipeConfig, domain: RecipeDomain, ask: LanguageModel, out: Path, progress: Progress
) -> Questions:
    path = out / QUESTIONS
    if path.exists():
        return load_questions(out)
    questions = make_questions(config, domain, ask, progress)
    failed = questions.rejected[f"questions: {_FAILED}"]
    write_stage(path, {"rejected": dict(questions.rejected)}, [one.record() for one in questions.items], failed)
    return questions


def _responses(
    config: RecipeConfig,
    domain: RecipeDomain,
    questions: list[Question],
    ask: LanguageModel,
    write: LanguageModel,
    out: Path,
    progress: Progress,
) -> Responses:
    path = out / RESPONSES
    if path.exists():
        return load_responses(out)
    views: dict[str, list[str]] = {}
    if config.steering == "views":
        views = _views(config, domain, questions, ask, out, progress)
    responses = make_responses(config, domain, questions, views, write, progress)
    header = {"asked": responses.asked, "rejected": dict(responses.rejected)}
    write_stage(path, header, [one.record() for one in responses.items], responses.rejected[_FAILED])
    return responses


def _views(
    config: RecipeConfig,
    domain: RecipeDomain,
    questions: list[Question],
    ask: LanguageModel,
    out: Path,
    progress: Progress,
) -> dict[str, list[str]]:
    path = out / VIEWS
    if path.exists():
        _, listed = read_headed(path, lambda row: (row["question"], row["views"]))
        return dict(listed)
    views = make_views(config, domain, questions, ask, progress)
    rows = [{"question": id, "views": listed} for id, listed in views.items()]
    write_stage(path, {}, rows, len(questions) - len(views))
    return views


def _judging(
    config: RecipeConfig,
    domain: RecipeDomain,
    questions: list[Question],
    responses: list[Response],
    ask: LanguageModel,
    out: Path,
) -> Judging:
    if config.judge == "llm":
        return pairwise_judge(config, domain, ask).judge
    judge = measured_judge(config, domain, questions, responses)
    judge.save(out / JUDGE)
    return by_measures(judge)


def _to_label(cast: Cast, places: Sequence[Place], parts: Mapping[Split, frozenset[str]]) -> list[Person]:
    split: dict[str, Split] = {id: name for name, ids in parts.items() for id in ids}
    return [
        Person(user, split[user.id], place.topic, tuple(cast.judged[user.id]))
        for user, place in zip(cast.users, places, strict=True)
    ]


def _people(cast: Cast) -> dict[str, Any]:
    """The users' descriptions before and after, for readers."""
    return {
        user.id: {
            "first": cast.first[user.id],
            "added": cast.added.get(user.id, []),
            "made anew": cast.attempts[user.id],
            "outside": cast.outside.get(user.id, ""),
        }
        for user in cast.users
    }


def _refuse_undecided(config: RecipeConfig, order: OrderTally) -> None:
    """Before all pairs are paid for: a judge that decides next to nothing of the shared ones decides none of the rest.

    Raises:
        DataError: so it is.
    """
    asked = order.agreed + order.undecided.total()
    if asked >= _ENOUGH:
        _refuse(config, order.agreed, asked, order)


def _refuse(config: RecipeConfig, decided: int, asked: int, order: OrderTally) -> None:
    if not asked or decided >= max(1, asked // 50):
        return
    reasons = order.undecided.most_common(3)
    worst = ", ".join(f"{reason} ({count})" for reason, count in reasons)
    advice = _ADVICE[reasons[0][0]] if config.judge == "llm" else "Lower synthesis.margin."
    raise DataError(f"Only {decided} of {asked} pairs were decided; the others were left for: {worst}. {advice}")


def _save_splits(users: dict[Split, frozenset[str]], questions: dict[Split, frozenset[str]], out: Path) -> None:
    Splits(users=users, questions=questions).save(out / _SPLITS)


def _summary(checks: dict[str, Any]) -> str:
    counts = checks["counts"]
    return (
        f"{counts['preferences']:,} preferences of {counts['users']:,} users on {counts['responses']:,} responses to "
        f"{counts['questions']:,} questions; {counts['ties']:,} pairs were left undecided."
    )
