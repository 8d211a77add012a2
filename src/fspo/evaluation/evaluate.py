"""Evaluation from end to end: held-out users on held-out questions, every method on the same items, resumable."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from fspo.errors import ConfigError, ModelError
from fspo.evaluation.answering_stage import AnsweringStage
from fspo.evaluation.artifacts import (
    FORMAT,
    GAMES_FILE,
    Details,
    Estimates,
    JudgeIdentity,
    JudgesRecord,
    PerUser,
)
from fspo.evaluation.calibration import Calibration
from fspo.evaluation.capability_regression.stage import CapabilityRegression
from fspo.evaluation.config import HEADLINE, EvaluationConfig
from fspo.evaluation.context import Evaluation, OptionalMeasure
from fspo.evaluation.conversations import Conversations
from fspo.evaluation.ideal_observer import IdealObserver
from fspo.evaluation.judges.judgement_store import check_identity, judge_identity
from fspo.evaluation.judges.judges import answer_judge, jury_of
from fspo.evaluation.judges.pairwise_matches import all_games
from fspo.evaluation.judging_stage import JudgingStage
from fspo.evaluation.metrics.answer_metrics import quality_metrics
from fspo.evaluation.metrics.items import ITEMS_FILE, item_records
from fspo.evaluation.metrics.records import bytes_of_user, counts, samples_of, setting, varied_setting
from fspo.evaluation.metrics.reward_metrics import compute_reward_metrics
from fspo.evaluation.metrics.rewards import Rewards
from fspo.evaluation.metrics.table import Table, compare_tables, estimates, missing_interval_note, per_user
from fspo.evaluation.provenance import (
    Provenance,
    base_provenance,
    check_unseen,
    read_provenance,
    untraced,
    untraced_note,
)
from fspo.evaluation.scoring.descriptions import description_cost
from fspo.evaluation.scoring.eval_episodes import Trial
from fspo.evaluation.scoring.long_rows import measurable
from fspo.evaluation.scoring.reward_models.loading import (
    ExternalRewardModel,
    given_reward_model,
    load_reward_model,
)
from fspo.evaluation.scoring.reward_models.protocol import RewardModel
from fspo.evaluation.scoring.weights import Weights
from fspo.evaluation.scoring_stage import ScoringStage
from fspo.judging.declared import DeclaredJudge
from fspo.judging.judge import Judge, TextUtility
from fspo.judging.trait_readers import ReaderJudge
from fspo.llm.pool import EndpointPool
from fspo.methods.adaptation import AdaptationRow
from fspo.methods.table import METHODS
from fspo.modeling.layouts import LayoutName
from fspo.modeling.memory import out_of_memory_explained
from fspo.modeling.model_names import layout_note
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.types import Preference
from fspo.progress import Progress, Silent
from fspo.records import write_record, write_records

__all__ = ["evaluate"]

T = TypeVar("T")

OPTIONAL: tuple[type[OptionalMeasure], ...] = (Calibration, IdealObserver, CapabilityRegression, Conversations)
"""What is measured besides; each is asked at every stage what it adds."""

_MEMORY_ADVICE = (
    "lower evaluation.answer_batch, evaluation.queries or evaluation.max_length, or set evaluation.dtype to bfloat16; "
    "what was measured with the same settings is kept"
)


@out_of_memory_explained(ModelError, _MEMORY_ADVICE)
def evaluate(
    config: EvaluationConfig,
    dataset: PreferenceDataset,
    policies: Mapping[str, Path | None],
    *,
    model: str,
    out: Path,
    results: Path | None = None,
    judge: Judge | None,
    train: PreferenceDataset | None = None,
    reward_models: Mapping[str, RewardModel] | None = None,
    trials: Sequence[Trial] | None = None,
    judges: Mapping[str, Judge] | None = None,
    endpoints: EndpointPool | None = None,
    costs: Mapping[str, Mapping[str, float]] | None = None,
    adaptations: Mapping[str, AdaptationRow] | None = None,
    row_number: Callable[[Preference], int] | None = None,
    progress: Progress | None = None,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Measure every method and write `metrics.json`, and the files it depends on, into `out` (docs/evaluation.md).

    Called again with the same arguments it resumes where it stopped.

    Args:
        config: what to measure.
        dataset: the test part, held-out users on held-out questions.
        policies: method -> policy folder, None for a method that trains nothing.
        model: the base model, by name, path or hub id.
        out: folder of the evaluation.
        results: folder of `metrics.json` and `samples.jsonl`, by default `out`.
        judge: says which of two answers a user prefers; one with a `utility` also gives the ideal observer.
            Without a judge the first of the further ones takes its place. Without any, every method answers one prompt
            of a few users, for people to read, and there is neither a win rate nor an observer.
        train: the training part, which may share no user and no question with the dataset. Without it, and of policies
            that don't say what they were trained on, nobody can tell whom they have seen, which is said.
        reward_models: name -> reward model from elsewhere, measured on the same items beside the configured ones.
        trials: the episodes, such as those of a benchmark; by default drawn from the dataset as `config` says.
        judges: name -> further judge of the same answers, beside the configured ones. One that is not fspo's own has an
            `identity`, as has such a `judge`.
        costs: method -> what it took, such as `train_seconds` and `parameters`, for `details.json`.
        adaptations: method -> settings, of methods that adapt the policy to each user; by default the usual ones.
        endpoints: opens the endpoints that `config` names; by default each has its answers and its budget in `out`.
        row_number: gives the row of a preference in its file, to say what is left out.
        progress: shows the stages.

    Returns:
        method -> measure -> {value, low, high, users, items}.

    Raises:
        DataError: a leak, naming it; a policy was trained on other data; a user has too few preferences, or no
            description for a judge that reads it; preferences are too long, and `long_rows` refuses these.
        ConfigError: a method is unknown or lacks its policy, the name of a reward model or a judge is taken, or a judge
            has no identity.
        ModelError: a judge or a reward model failed; what was measured before is kept.
    """
    shown = progress or Silent()
    if endpoints is None:
        with closing(EndpointPool(out, config.endpoints(), say=shown.say)) as own:
            measured = evaluate(
                config, dataset, policies, model=model, out=out, results=results, judge=judge, train=train,
                reward_models=reward_models, trials=trials, judges=judges, endpoints=own, costs=costs,
                adaptations=adaptations, row_number=row_number, progress=progress,
            )  # fmt: skip
            for line in own.spent():
                shown.say(line)
            return measured
    weights = Weights(
        model,
        policies,
        dtype=config.dtype,
        max_length=config.max_length,
        layout=config.layout,
        adaptations=adaptations,
    )
    provenance = read_provenance(policies)
    unknown = _check_training_data(base_provenance(model) | provenance, train, dataset, shown)
    layouts = _say_layouts([model, *filter(None, policies.values())], config.layout, shown)
    jury = _jury(config, dataset, judge, judges or {}, endpoints, shown)
    if not jury:
        config = config.for_reading()
    config = config.with_rungs(k for row in provenance.values() for k in row.shots)
    read = measurable(config, dataset, policies, weights.renderer, trials=trials, row_number=row_number, say=shown.say)
    external = _external_models(config, reward_models or {}, endpoints, shown)
    evaluation = Evaluation(
        config, read.dataset, read.trials, list(policies), weights, out, shown, endpoints, judge, train, provenance
    )
    if config.answers and (note := _left_out_note(evaluation)):
        shown.say(note)
    stages = _Stages(evaluation, jury)
    found = stages.measure(external)
    results = out if results is None else results
    stages.write_items(results)
    stages.write_records(
        {
            "untraced": unknown,
            "too_long": read.too_long,
            "layouts": layouts,
            "costs": _costs(stages.scoring, costs or {}),
        }
    )
    if note := missing_interval_note(entry for row in found.values() for entry in row.items()):
        shown.say(note)
    write_record(results / "metrics.json", found, Estimates)
    return {name: {measure: estimate.to_json() for measure, estimate in row.items()} for name, row in found.items()}


def _check_training_data(
    provenance: Mapping[str, Provenance], train: PreferenceDataset | None, test: PreferenceDataset, progress: Progress
) -> list[str]:
    """Check that no policy has seen the test part.

    Returns the methods whose training data are unknown, and reports them to `progress`.

    Raises:
        DataError: one was trained on users or questions of the test part, or on other data than `train`.
    """
    if train is not None:
        check_unseen(provenance, train, test)
    unknown = untraced(provenance, checked=train is not None)
    if unknown:
        progress.say(untraced_note(unknown))
    return unknown


def _say_layouts(places: Iterable[str | Path], layout: LayoutName, progress: Progress) -> list[str]:
    """Say and return a sentence on each model and policy that was trained with another layout than this one."""
    notes = list(filter(None, (layout_note(place, layout) for place in dict.fromkeys(places))))
    for line in notes:
        progress.say(line)
    return notes


def _jury(
    config: EvaluationConfig,
    dataset: PreferenceDataset,
    judge: Judge | None,
    judges: Mapping[str, Judge],
    endpoints: EndpointPool,
    progress: Progress,
) -> dict[str, Judge]:
    """The judges of answers, by name.

    Raises:
        ConfigError: the name of one is taken, or one has no identity.
        DataError: a user has no description for a judge that reads it.
    """
    texts = (text for row in dataset for text in (row.chosen, row.rejected))
    jury = jury_of(config, answer_judge(judge), judges, texts, dataset.users.values(), endpoints, progress)
    for member in jury.values():
        check_identity(member)
    return jury


class _Stages:
    """The stages of one evaluation, and what they found."""

    def __init__(self, evaluation: Evaluation, jury: Mapping[str, Judge]) -> None:
        self.evaluation = evaluation
        self.optional = [measure(evaluation) for measure in OPTIONAL]
        self.scoring, self.answering = ScoringStage(evaluation), AnsweringStage(evaluation, judged=bool(jury))
        config, users = evaluation.config, evaluation.dataset.users
        self.judging = JudgingStage(config, users, jury, evaluation.out, evaluation.progress)
        self.rewards: dict[str, Rewards] = {}
        self.tables: dict[str, Table] = {}

    def measure(self, external: Sequence[ExternalRewardModel]) -> Estimates:
        """Let all methods and reward models be scored, answer and be judged; gives method -> measure -> estimate."""
        evaluation, scoring, answering, judging = self.evaluation, self.scoring, self.answering, self.judging
        # First, since somebody's own function may fail. A model that chooses answers too is loaded once, for both, when
        # the policies have answered: an error of it shows only then, and their answers are on disk.
        later = [model for model in external if model.loads and answering.draws_candidates]
        scored = {model.name: self._scored(model) for model in external if model not in later}
        self._use_weights(external=bool(external))
        corrupted = {name: scoring.corrupted(name) for name in evaluation.methods}
        others = {name: _merged(one.estimates(name) for one in self.optional) for name in evaluation.methods}
        if external:
            evaluation.weights.let_go()
        for model in external:
            if model in later:
                scored[model.name] = scoring.external(model)
            answering.choose(model)
            model.let_go()
        self.rewards = {name: scoring.rewards(name) for name in evaluation.methods}
        self.rewards |= {model.name: scored[model.name] for model in external}
        qualities = answering.qualities()
        evaluation.weights.let_go()
        for note in (*(note for one in self.optional for note in one.notes()), *_unread_notes(self.rewards)):
            evaluation.progress.say(note)
        judging.judge(answering.answers, qualities)
        self.tables = {
            name: compute_reward_metrics(name, self.rewards, evaluation.trained(name).shots)
            | _merged(one.rewards(name, self.rewards) for one in self.optional)
            | corrupted.get(name, {})
            for name in self.rewards
        }
        for key, answers in answering.answers.items():
            name, sampling = key
            if name not in self.tables:
                continue
            headline, table = sampling == answering.headline_sampling(name), self.tables[name]
            table |= _merged(one.answers(key, answers) for one in self.optional)
            table |= judging.table(key, headline=headline)
            if "@" not in sampling:
                table |= quality_metrics(answers, qualities[key], evaluation.config.floors, sampling)
            others.setdefault(name, {}).update(judging.length_controlled(key, headline=headline))
        return {name: estimates(table) | others.get(name, {}) for name, table in self.tables.items()}

    def _scored(self, model: ExternalRewardModel) -> Rewards:
        """What a reward model says of the pairs; then the next one has room in memory."""
        rewards = self.scoring.external(model)
        model.let_go()
        return rewards

    def _use_weights(self, *, external: bool) -> None:
        """Everything that needs weights, one set after the other; `external`: whether reward models answer too."""

        def use(method: str) -> None:
            describer = self.scoring.describers.get(method)
            self.answering.answer(method, describer)
            for measure in self.optional:
                measure.use_weights(method, describer)

        methods, weights = self.evaluation.methods, self.evaluation.weights
        self.scoring.describe(methods)
        for source, views in self.scoring.wanted(methods).items():
            self.scoring.score(source, views)
            for method in methods:
                if weights.source(method) == source:
                    use(method)
        use("base")  # answers are compared with the base model's
        if external:
            self.answering.draw_candidates()

    def write_items(self, results: Path) -> None:
        """What was found item by item, user by user and between methods."""
        evaluation, answers, tables = self.evaluation, self.answering.answers, self.tables
        out, users, judged = evaluation.out, evaluation.dataset.users, self.judging.headline
        write_record(out / "per_user.json", {name: per_user(table) for name, table in tables.items()}, PerUser)
        headlines: dict[str, dict[str, str]] = {
            "reward_accuracy": {name: row.headline for name, row in self.rewards.items()},
            "win_rate": {name: self.answering.headline_sampling(name) for name in self.rewards},
        }
        write_record(out / "comparisons.json", compare_tables(self._lead, tables, headlines), Estimates)
        written = {
            name: {trial.id: describer(trial.own.shots) for trial in evaluation.trials}
            for name, describer in self.scoring.describers.items()
        }
        full = {key: rows for key, rows in answers.items() if "@" not in key[1]}
        write_records(results / "samples.jsonl", samples_of(users, full, judged, written))
        won = {name: table["win_rate"].of for name, table in tables.items() if "win_rate" in table}
        games = all_games(evaluation.answer_judge, users, answers, judged, self.answering.samplings, won)
        write_records(out / GAMES_FILE, games)
        base = {answer.item: answer.text for answer in answers.get(("base", "plain"), ())}
        write_records(out / ITEMS_FILE, item_records(evaluation.trials, users, tables, base))

    def write_records(self, known: Mapping[str, Any]) -> None:
        """`details.json` (what was measured on what), `judges.json`, and the files of the optional measures."""
        evaluation, judging, rewards = self.evaluation, self.judging, self.rewards
        config, judgements, answers = evaluation.config, judging.headline, self.answering.answers
        fields: dict[str, Any] = {
            "format": FORMAT,
            "model": evaluation.weights.model,
            "compared": self._lead,
            "judge_kind": _kind(evaluation.judge),
            **_readers(evaluation),
            "judge": self._judge(judging.judges.get(HEADLINE) or evaluation.judge),  # none judges without answers
            "judges": {name: self._judge(one) for name, one in judging.judges.items() if name != HEADLINE},
            "rewards": {name: row.variants for name, row in rewards.items()},
            "reward_models": {name: {"unread": row.own.unread} for name, row in rewards.items() if row.external},
            "training_shots": {name: row.shots for name, row in evaluation.provenance.items() if row.shots},
            "robustness": varied_setting(config, evaluation.probes),
            "samplings": self.answering.samplings if judgements else {},
            "dropped_shots": {name: row.own.dropped_shots for name, row in rewards.items()}
            | {f"{m}, {s} answers": sum(a.dropped_shots for a in rows) for (m, s), rows in answers.items()},
            "descriptions": {
                name: description_cost([describer.of(trial.own.shots) for trial in evaluation.trials])
                for name, describer in self.scoring.describers.items()
            },
            "judgements": {f"{method}, {sampling}": counts(rows) for (method, sampling), rows in judgements.items()},
        }
        files: dict[str, Any] = {
            "details.json": fields | setting(config, evaluation.trials) | dict(known),
            "judges.json": dict(judging.record()),
        }
        for measure in self.optional:
            for file, record in measure.files(rewards).items():
                files[file] = files.get(file, {}) | record
        files["details.json"] = Details(**files["details.json"])
        files["judges.json"] = JudgesRecord(**files["judges.json"])
        for file, record in files.items():
            write_record(evaluation.out / file, record)

    @property
    def _lead(self) -> str:
        """The method that the others are compared with."""
        return "fspo" if "fspo" in self.rewards else list(self.rewards)[-1]

    def _judge(self, judge: Judge | None) -> JudgeIdentity | None:
        """Which judge this is; None where there is none."""
        prompts = {query.prompt for trial in self.evaluation.trials for query in trial.own.queries}
        return None if judge is None else judge_identity(judge, prompts)


def _external_models(
    config: EvaluationConfig, given: Mapping[str, RewardModel], endpoints: EndpointPool, progress: Progress
) -> list[ExternalRewardModel]:
    """The configured reward models and those that are given in Python."""
    found = [load_reward_model(entry, config, endpoints, progress.say) for entry in config.reward_models]
    for name, scorer in given.items():
        if name in METHODS or name in (model.name for model in found):
            raise ConfigError(f"The reward model '{name}' has a name that is taken; call it otherwise.")
        found.append(given_reward_model(name, scorer))
    return found


def _unread_notes(rewards: Mapping[str, Rewards]) -> list[str]:
    """A sentence on each reward model that gave nothing on some pairs, which count as no decision."""
    return [
        f"The reward model '{name}' gave no score on {row.own.unread} of {len(row.own)} pairs, under all conditions; "
        "they count as no decision."
        for name, row in rewards.items()
        if row.own.unread
    ]


def _costs(scoring: ScoringStage, given: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """What each method took; of a policy, what is stored of a user is the text that it is shown, and its state."""
    evaluation = scoring.evaluation
    shown = {name: {"bytes_per_user": bytes_of_user(evaluation.trials, METHODS[name])} for name in evaluation.methods}
    for name, users in scoring.user_costs.items():
        shown[name]["bytes_per_user"] += statistics.fmean(user.bytes for user in users)
        shown[name]["numbers_per_user"] = statistics.fmean(user.numbers for user in users)
        shown[name]["user_seconds"] = statistics.median(user.seconds for user in users)
    return {name: {**shown.get(name, {}), **given.get(name, {})} for name in dict.fromkeys([*shown, *given])}


def _kind(judge: Judge | None) -> str:
    if judge is None:
        return "none"
    if isinstance(judge, DeclaredJudge):
        return "declared"
    return "attributes" if isinstance(judge, TextUtility) else "other"


def _left_out_note(evaluation: Evaluation) -> str:
    """A sentence on users whose traits can't be read in answers; empty where there are none."""
    judge, found = evaluation.answer_judge, _readers(evaluation)
    if not isinstance(judge, ReaderJudge) or not found["unjudged_users"]:
        return ""
    badly = [f"{name} ({row.ordered:.0%} of pairs right)" for name, row in judge.readings.items() if not row.readable]
    count = len({trial.user for trial in evaluation.trials})
    return (
        f"{found['unjudged_users']} of {count} users are left out of the win rates, because a trait that they have a "
        f"weight for can't be read well enough in answers: {', '.join(badly) or 'it is no trait of these texts'}."
    )


def _readers(evaluation: Evaluation) -> dict[str, Any]:
    """How rightly traits are read in answers, and how many users are left out of the win rates for that."""
    judge = evaluation.answer_judge
    if not isinstance(judge, ReaderJudge):
        return {}
    users = {trial.user: evaluation.dataset.users[trial.user] for trial in evaluation.trials}
    return {
        "readers": dict(judge.readings),
        "unjudged_users": sum(not judge.has_weights(user) for user in users.values()),
    }


def _merged(tables: Iterable[Mapping[str, T]]) -> dict[str, T]:
    return {measure: value for table in tables for measure, value in table.items()}
