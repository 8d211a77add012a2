"""Synthetic users and preferences, from questions to a dataset; every stage leaves its files in the dataset's folder.

`questions.jsonl`, `views.jsonl` (steering by views), `responses.jsonl`, `judge.json` (a judge that reads traits),
`people.json`, `labels/` and `undecided/` (a file for each shard of users), the dataset (`users.parquet`,
`preferences.parquet`, `dataset.json`), `checks.json`, `README.md` (its card), `synthesis.json`, and last `splits.json`.
Answers of language models are kept where they are asked (`fspo.llm.cache`), so that nothing is asked
twice after a kill.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fspo.errors import DataError
from fspo.files import check_unclaimed, sweep, write_json, write_text
from fspo.judging.declared import DeclaredJudge
from fspo.judging.verdicts import OrderTally
from fspo.llm.types import Completion, LanguageModel, NamedModel, replies_of, title_of
from fspo.preferences.dataset import DATASET, write_dataset
from fspo.preferences.splits import Splits
from fspo.preferences.types import Split
from fspo.printing import counted, option
from fspo.progress import Progress, Silent
from fspo.synthesis.card import dataset_card
from fspo.synthesis.checks import Checks, SampledLabels
from fspo.synthesis.config import SynthesisConfig, asks_models, usual_settings
from fspo.synthesis.domain import Domain, Question, load_domain
from fspo.synthesis.judges import TraitJudge, by_traits, check_judge, pairwise_judge, trait_judge, with_readers
from fspo.synthesis.labels import LABELS, UNDECIDED, Executor, InProcessExecutor, label_all, preferences_of
from fspo.synthesis.origin import Origin, difference, refuse_finished
from fspo.synthesis.pairs import pairs_of
from fspo.synthesis.questions import Questions, check_questions, make_questions
from fspo.synthesis.responses import Response, Responses, make_views, sampled_responses, written_responses
from fspo.synthesis.restyled_responses import restyled_responses
from fspo.synthesis.shards import Labeller, Person, Work
from fspo.synthesis.storage import (
    JUDGE,
    QUESTIONS,
    RESPONSES,
    UNFINISHED,
    VIEWS,
    Views,
    failed_stages,
    load_questions,
    load_responses,
    load_views,
    write_stage,
)
from fspo.synthesis.user_slots import UserSlot, slots_of, split_users
from fspo.synthesis.users import SynthesizedUsers, UserMaker

__all__ = ["NOBODY", "Writers", "check_plan", "is_complete", "synthesize"]

_ENOUGH = 100
"""Shared pairs, over all users, that a judge's worth can be told from."""
_IDENTITY, _BEGUN, _SPLITS, _PEOPLE = "synthesis.json", "begun.json", "splits.json", "people.json"
_FAILED = Completion("", 0, "failed").missing
_PROMPTS = 2
"""Version of how the prompts are put together. 1: other people's texts stand in them without quotation."""
_ADVICE = {
    "inconsistent": "A judge that follows the order of the responses decides nothing: use another model.",
    "unclear": "Descriptions of users that tell more, or responses that differ more, can be decided.",
    "unreadable": 'The judge has to answer with {"preferred": "A"}, "B" or "unclear": look at the prompt judge, or use '
    "another model. Once it is repaired, %s asks again what could not be read and nothing else.",
    "reasoning": "The limit was used up by reasoning: raise synthesis.judge_max_tokens, or switch reasoning off "
    "(endpoint.extra_body).",
    "failed": "The endpoint failed on what it was shown: look at its log, or use another. The same command asks again.",
    "refused": "The endpoint refuses what it is shown: use another model, or other questions.",
}
"""Reason that most pairs were left for -> what to do, where a language model judges."""


@dataclass(frozen=True)
class Writers:
    """The language models of a synthesis, by name and identity alone or ready to be asked.

    `ask` writes questions, viewpoints, portraits and sentences of descriptions, and judges; `write` writes the
    responses, and may be the same, or an ensemble.
    """

    ask: LanguageModel
    write: LanguageModel


NOBODY = Writers(NamedModel("nobody"), NamedModel("nobody"))
"""Where no model is asked for anything."""


def synthesize(
    config: SynthesisConfig,
    writers: Writers,
    out: str | Path,
    progress: Progress | None = None,
    executor: Executor | None = None,
) -> Path:
    """Make synthetic users and preferences in the folder `out`, going on from what is there.

    The result is a function of the configuration, the domain and the models; an interrupted call gives the same as any
    other, and so does every `executor`, who labels (by default this process). Requests that failed are counted, and the
    dataset is made without them. A later call asks them again, as long as the dataset is not finished.

    Returns:
        The folder: a dataset, and `splits.json`, which says what is trained on and what is held out.

    Raises:
        ConfigError: more is asked for than the domain has, or the folder holds a finished dataset of another origin.
        DataError: the domain is wrong, or the models' texts were too poor to make a dataset of.
        ModelError: a model failed; what it has answered is kept.
        StorageError: the folder can't be written.
    """
    out, progress = Path(out), progress or Silent()
    domain = load_domain(config.domain)
    slots = check_plan(config, domain)
    origin = _origin_of(config, domain, writers)
    if _is_complete(out, origin):
        return out
    _begin(out, origin, progress)
    stages = _Stages(config, domain, writers, out, progress)
    questions = stages.questions()
    responses = stages.responses(questions.items)
    pairs, question_parts = pairs_of(config, domain, questions.items, responses.items)
    user_parts = split_users(config, slots)
    judge = stages.judge(questions.items, responses.items, question_parts["train"])
    judging = by_traits(judge) if judge is not None else pairwise_judge(config, domain, writers.ask).judge
    made = UserMaker(config, domain, pairs, user_parts, judging, writers.ask, progress).make(slots)
    write_json(out / _PEOPLE, _people(made))
    _refuse_undecided(config, made.order)
    labeller = Labeller(Work(config, domain, out), pairs, judging)
    counts = label_all(_to_label(made, slots, user_parts), labeller, executor or InProcessExecutor(), progress)
    _refuse(config, counts.decided, counts.asked, counts.order)
    labels = SampledLabels(config.seed)
    write_dataset(out, made.users, labels.passing(preferences_of(config, domain, questions, responses, out)))
    checks = Checks(config, domain, questions, responses, made, counts, labels.rows()).record()
    checks["replies"] = replies_of(writers.ask, writers.write)
    if isinstance(judge, DeclaredJudge) and judge.answers is not None:
        checks["readers"] = {trait: asdict(reading) for trait, reading in judge.answers.readings.items()}
    write_json(out / "checks.json", checks)
    card = dataset_card(config, domain, title_of(writers.ask), title_of(writers.write), checks)
    write_text(out / "README.md", card)
    write_json(out / _IDENTITY, origin.record())
    (out / UNFINISHED).unlink(missing_ok=True)
    Splits(users=user_parts, questions=question_parts).save(out / _SPLITS)
    progress.say(_summary(checks))
    return out


def check_plan(config: SynthesisConfig, domain: Domain) -> list[UserSlot]:
    """Check, before any model is asked, that users and questions are left to train on and to hold out.

    Returns the slots of all users.

    Raises:
        ConfigError: more is asked for than the domain has, or the judge can't judge its responses.
        DataError: the domain has too little.
    """
    check_judge(config, domain)
    check_questions(config, domain)
    return slots_of(config, domain)


def is_complete(out: Path, config: SynthesisConfig, writers: Writers) -> bool:
    """Whether the folder holds the finished data of this configuration and these models; names and identities do.

    Raises:
        DataError: the domain is wrong.
    """
    return _is_complete(out, _origin_of(config, load_domain(config.domain), writers))


def _origin_of(config: SynthesisConfig, domain: Domain, writers: Writers) -> Origin:
    """What decides the dataset; models that are asked nothing decide nothing."""
    if not asks_models(config):
        writers = NOBODY
    settings = config.model_dump(mode="json", exclude={"batch", "domain"})
    made_of = {"name": domain.name, "sha256": domain.fingerprint}
    decided = {"config": settings, "domain": made_of, "prompts": _PROMPTS}
    return Origin(decided, writers.ask, writers.write, usual={"config": usual_settings(config)})


def _is_complete(out: Path, origin: Origin) -> bool:
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
    for folder in (out, out / LABELS, out / UNDECIDED):
        sweep(folder)  # a kill may leave half a file, and the dataset's folder would keep it
    (out / _SPLITS).unlink(missing_ok=True)
    found = origin.compared(out / _BEGUN) if (out / _BEGUN).exists() else None
    if found:
        if failed := failed_stages(out):
            _remove(out, failed)
        return
    if found is not None:
        progress.say(f"The unfinished data in {out} were made {difference(found)}; fspo generates them again.")
    # Until the last step the old origin stays, or a killed call would leave files that are of no call.
    _remove(out, (UNFINISHED, QUESTIONS, VIEWS, RESPONSES, JUDGE, _PEOPLE))
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


@dataclass(frozen=True)
class _Stages:
    """The stages before the users: each is read from the file that an earlier call has left, or made and written."""

    config: SynthesisConfig
    domain: Domain
    writers: Writers
    out: Path
    progress: Progress

    def questions(self) -> Questions:
        path = self.out / QUESTIONS
        if path.exists():
            return load_questions(self.out)
        made = make_questions(self.config, self.domain, self.writers.ask, self.progress)
        write_stage(path, {"rejected": dict(made.rejected)}, made.items, made.rejected[f"questions: {_FAILED}"])
        return made

    def responses(self, questions: list[Question]) -> Responses:
        """The responses, in the way of the domain: sampled, restyled or written."""
        path, config, domain = self.out / RESPONSES, self.config, self.domain
        if path.exists():
            return load_responses(self.out)
        if domain.file.responses == "written":
            made = written_responses(domain, questions)
        elif domain.file.responses == "restyled":
            made = restyled_responses(config, domain, questions, self.writers.write, self.progress)
        else:
            views = self._views(questions) if config.steering == "views" else {}
            made = sampled_responses(config, domain, questions, views, self.writers.write, self.progress)
        header = {"asked": made.asked, "rejected": dict(made.rejected), "steering": made.steering}
        write_stage(path, header, made.items, made.rejected[_FAILED])
        return made

    def _views(self, questions: list[Question]) -> dict[str, list[str]]:
        path = self.out / VIEWS
        if path.exists():
            return load_views(self.out)
        made = make_views(self.config, self.domain, questions, self.writers.ask, self.progress)
        write_stage(path, {}, [Views(*row) for row in made.items()], len(questions) - len(made))
        return made

    def judge(self, questions: list[Question], responses: list[Response], train: Collection[str]) -> TraitJudge | None:
        """The judge by traits, saved; None where a language model judges. `train` are ids of questions."""
        if not self.config.by_traits:
            return None
        judge = trait_judge(self.config, self.domain, questions, responses)
        if isinstance(judge, DeclaredJudge):
            judge = with_readers(judge, responses, train)
        judge.save(self.out / JUDGE)
        return judge


def _to_label(made: SynthesizedUsers, slots: Sequence[UserSlot], parts: Mapping[Split, frozenset[str]]) -> list[Person]:
    split: dict[str, Split] = {id: name for name, ids in parts.items() for id in ids}
    return [
        Person(user, split[user.id], slot.topic, tuple(made.judged[user.id]))
        for user, slot in zip(made.users, slots, strict=True)
    ]


def _people(made: SynthesizedUsers) -> dict[str, Any]:
    """The users' descriptions before and after, for readers."""
    return {
        user.id: {
            "first": made.first[user.id],
            "added": made.added.get(user.id, []),
            "made anew": made.attempts[user.id],
            "outside": made.outside.get(user.id, ""),
        }
        for user in made.users
    }


def _refuse_undecided(config: SynthesisConfig, order: OrderTally) -> None:
    """Before all pairs are paid for: a judge that decides next to nothing of the shared ones decides none of the rest.

    Raises:
        DataError: so it is.
    """
    asked = order.agreed + order.undecided.total()
    if asked >= _ENOUGH:
        _refuse(config, order.agreed, asked, order)


def _refuse(config: SynthesisConfig, decided: int, asked: int, order: OrderTally) -> None:
    if not asked or decided >= max(1, asked // 50):
        return
    reasons = order.undecided.most_common(3)
    worst = ", ".join(f"{reason} ({count})" for reason, count in reasons)
    advice = (
        "Lower synthesis.margin."
        if config.by_traits
        else _ADVICE[reasons[0][0]].replace("%s", option("on-existing", "overwrite"))
    )
    raise DataError(f"Only {decided} of {asked} pairs were decided; the others were left for: {worst}. {advice}")


def _summary(checks: dict[str, Any]) -> str:
    counts = checks["counts"]
    return (
        f"{counted(counts['preferences'], 'preferences')} of {counted(counts['users'], 'users')} on "
        f"{counted(counts['responses'], 'responses')} to {counted(counts['questions'], 'questions')}; "
        f"left undecided: {counted(counts['ties'], 'pairs')}."
    )
