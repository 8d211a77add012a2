"""Evaluation from end to end: held-out users on held-out questions, every method on the same items, resumable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fspo.errors import ConfigError
from fspo.evaluation.capability_regression.stage import TaxStage
from fspo.evaluation.config import HEADLINE, EvaluationConfig, Sampling
from fspo.evaluation.ideal_observer.ceiling import Ceiling
from fspo.evaluation.ideal_observer.observer import prior_of
from fspo.evaluation.ideal_observer.regret import Regrets
from fspo.evaluation.judges.answer_quality import Closeness, Quality, broken_floors, measure_quality
from fspo.evaluation.judges.fluency import answer_log_probs
from fspo.evaluation.judges.judgement_store import TextUtility, check_identity, judge_digest
from fspo.evaluation.judges.judges import jury_of
from fspo.evaluation.judges.pairwise_matches import GAMES_FILE, all_games, write_games
from fspo.evaluation.judges.win_rates import Answer, AnswerKey, Comparer, Judgement, draw_answers
from fspo.evaluation.judging_stage import JudgingStage
from fspo.evaluation.metrics.comparisons import comparisons, item_values, judged_values
from fspo.evaluation.metrics.items import ITEMS_FILE, write_items
from fspo.evaluation.metrics.measures import Rewards, quality_measures
from fspo.evaluation.metrics.per_item import Measured, estimates, no_interval, per_user
from fspo.evaluation.metrics.records import counts, setting, varied_setting, write_samples
from fspo.evaluation.metrics.reward_metrics import calibrations, reward_figures
from fspo.evaluation.provenance import (
    Provenance,
    base_provenance,
    check_unseen,
    read_provenance,
    untraced,
    untraced_note,
)
from fspo.evaluation.robustness.measures import COLD
from fspo.evaluation.scoring.descriptions import description_cost
from fspo.evaluation.scoring.eval_episodes import Item, Trial, build_trials
from fspo.evaluation.scoring.long_rows import fitting_trials, rooms_of
from fspo.evaluation.scoring.reward_models.loading import ExternalRewardModel, given_reward_model, load_reward_model
from fspo.evaluation.scoring.reward_models.protocol import RewardModel
from fspo.evaluation.scoring.variations import Probe, build_probes
from fspo.evaluation.scoring.weights import Weights
from fspo.evaluation.scoring_stage import ScoringStage
from fspo.evaluation.statistics import Estimate
from fspo.files import write_json
from fspo.judging.by_topic import OWN, TopicJudge
from fspo.judging.judge import AttributeJudge
from fspo.methods.table import METHODS
from fspo.modeling.fitting import fitted
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.types import User
from fspo.progress import Progress, Silent

__all__ = ["evaluate"]


def evaluate(
    config: EvaluationConfig,
    dataset: PreferenceDataset,
    policies: Mapping[str, Path | None],
    *,
    model: str,
    out: Path,
    judge: Comparer | None,
    train: PreferenceDataset | None = None,
    reward_models: Mapping[str, RewardModel] | None = None,
    trials: Sequence[Trial] | None = None,
    judges: Mapping[str, Comparer] | None = None,
    progress: Progress | None = None,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Measure every method and write `metrics.json`, with what it rests on, into `out`.

    Besides: `margins.jsonl`, `variations.jsonl`, `answers.jsonl` and `judgements.jsonl` of each method, and
    `samples.jsonl`, `observer.json`, `comparisons.json`, `per_user.json`, `calibration.json`, `judges.json`,
    `items.jsonl`, `games.jsonl` and `details.json`; where the tax is measured, `tax.jsonl` of each method.
    Called again with the same arguments it goes on where it was stopped.

    Args:
        config: what to measure.
        dataset: the test part, held-out users on held-out questions.
        policies: method -> policy folder, None for a method that trains nothing.
        model: the base model, by name, path or hub id.
        out: folder of the evaluation.
        judge: says which of two answers a user prefers; one with a `utility` also gives the ideal observer.
            Without a judge the first of the further ones takes its place; without any no answers are drawn, and there
            is neither a win rate nor an observer.
        train: the training part, which may share no user and no question with the dataset. Without it, and of policies
            that don't say what they were trained on, nobody can tell whom they have seen, which is said.
        reward_models: name -> reward model from elsewhere, measured on the same items beside the configured ones.
        trials: the episodes, such as those of a benchmark; by default drawn from the dataset as `config` says.
        judges: name -> further judge of the same answers, beside the configured ones. One that is not fspo's own has an
            `identity`, as has such a `judge`.
        progress: shows the stages.

    Returns:
        method -> measure -> {value, low, high, users, items}.

    Raises:
        DataError: a leak, naming it; a policy was trained on other data; a user has too few preferences, or no
            description for a judge that goes by it; preferences are too long, and `long_rows` refuses these.
        ConfigError: a method is unknown or lacks its policy, the name of a reward model or a judge is taken, or a judge
            has no identity.
        ModelError: a judge or a reward model failed; what was measured before is kept.
    """
    weights = Weights(model, policies, dtype=config.dtype, max_length=config.max_length)
    trained = read_provenance(policies)
    before = base_provenance(model)
    if train is not None:
        check_unseen(before | trained, train, dataset)
    unknown = untraced(before | trained, checked=train is not None)
    shown = progress or Silent()
    if unknown:
        shown.say(untraced_note(unknown))
    jury = jury_of(config, judge, judges or {}, dataset, out / "judges", shown)
    for member in jury.values():
        check_identity(member)
    if not jury:
        config = config.model_copy(update={"answers": 0})
    rungs = {*COLD, *(k for row in trained.values() for k in row.shots)}
    config = config.with_rungs(k for k in rungs if k <= config.shots)
    rooms = rooms_of(config, policies, weights.renderer)
    if trials is None:
        read = fitted(dataset, rooms, config.long_rows, setting="evaluation.long_rows", file="The test part")
        with read.explaining("the test part"):
            drawn = build_trials(read.dataset, config)
        said, too_long = read.said("the test part"), len(read.left_out)
        drawn, _ = fitting_trials(drawn, rooms, "leave-out")
    else:
        drawn, too_long = fitting_trials(trials, rooms, config.long_rows)
        said = [f"Left out: {too_long} queries that some method can't read whole."] if too_long else []
    for line in said:
        shown.say(line)
    external = [load_reward_model(entry, config, out / entry.name, shown.say) for entry in config.reward_models]
    for name, scorer in (reward_models or {}).items():
        if name in METHODS or name in (entry.name for entry in external):
            raise ConfigError(f"The reward model '{name}' has a name that is taken; call it otherwise.")
        external.append(given_reward_model(name, scorer))
    panel = JudgingStage(config, dataset.users, jury, out, shown)
    known = _whom_it_knows(judge, train.users.values() if train is not None else ())
    prior = prior_of(config.observer_prior, dataset.users.values(), known, config.seed)
    stage = _Stage(
        config, dataset, list(policies), weights, out, judge, shown, trained, external, drawn, panel, prior, unknown,
        too_long,
    )  # fmt: skip
    return stage.run()


@dataclass
class _Stage:
    """One evaluation under way."""

    config: EvaluationConfig
    dataset: PreferenceDataset
    methods: Sequence[str]
    weights: Weights
    out: Path
    judge: Comparer | None
    progress: Progress
    trained: Mapping[str, Provenance]
    external: Sequence[ExternalRewardModel]
    trials: Sequence[Trial]
    panel: JudgingStage
    prior: tuple[str, list[User]]
    untraced: Sequence[str] = ()
    """Methods of which nobody can say whom they have seen."""
    too_long: int = 0
    """Preferences of the test part that were left out because some method can't read them."""

    def __post_init__(self) -> None:
        """Fix the items."""
        self.items: tuple[Item, ...] = tuple(
            (trial.user, trial.item(number)) for trial in self.trials for number in range(len(trial.own.queries))
        )
        self.probes: list[Probe] = build_probes(self.dataset, self.trials, self.config)
        self.scoring = ScoringStage(
            self.config, self.trials, self.probes, self.items, self.weights, self.out, self.progress
        )
        self.tax = TaxStage(self.config, self.dataset, self.trials, self.weights, self.out, self.progress)
        self.answers: dict[AnswerKey, list[Answer]] = {}

    def run(self) -> dict[str, dict[str, dict[str, Any]]]:
        """All stages in order; the models are read once each, and the base model once more for fluency."""
        self._with_models()
        rewards = {name: self.scoring.rewards(name) for name in self.methods}
        corrupted = {name: self.scoring.corrupted(name) for name in self.methods}
        qualities = self._qualities()
        taxes = {name: self.tax.measures(name) for name in self.methods}
        self.weights.let_go()
        rewards |= {entry.name: self.scoring.external(entry) for entry in self.external}
        for note in (*self.tax.judges.notes(), *_said_unread(rewards)):
            self.progress.say(note)
        self.panel.judge(self.answers, qualities)
        judgements = self.panel.headline
        known = self._true_rewards()
        ceiling = self._ceiling(known)
        measured = {
            name: reward_figures(name, rewards, self.trained.get(name, Provenance()), known, ceiling)
            for name in rewards
        }
        for (name, sampling), answers in self.answers.items():
            if name in measured and known is not None and "@" not in sampling:
                drawn = [((answer.user, answer.item), answer.prompt, answer.text) for answer in answers]
                measured[name] |= known.answers(drawn, sampling)
        found = {name: estimates(row) | corrupted.get(name, {}) | taxes.get(name, {}) for name, row in measured.items()}
        for key, rows in qualities.items():
            if key[0] in found:
                found[key[0]] |= self._answer_estimates(key, rows)
        self._write(rewards, measured, judgements, ceiling.values(known.gaps) if ceiling and known else {})
        metrics = {name: _json(row) for name, row in found.items()}
        if note := no_interval(entry for row in found.values() for entry in row.items()):
            self.progress.say(note)
        write_json(self.out / "metrics.json", metrics)
        return metrics

    def _write(
        self,
        rewards: Mapping[str, Rewards],
        measured: Mapping[str, Measured],
        judgements: Mapping[AnswerKey, Sequence[Judgement]],
        observed: Measured,
    ) -> None:
        """Everything that lies beside the metrics."""
        write_json(self.out / "observer.json", _json(estimates(observed)))
        write_json(self.out / "per_user.json", {name: per_user(row) for name, row in measured.items()})
        write_json(self.out / "calibration.json", calibrations(rewards, self.trained))
        samplings = {name: self._headline_sampling(name) for name in rewards}
        compared = comparisons(self._lead, rewards, judgements, samplings)
        write_json(self.out / "comparisons.json", {name: _json(row) for name, row in compared.items()})
        write_json(self.out / "judges.json", self.panel.record() | self.tax.record())
        write_json(self.out / "details.json", self._details(rewards, judgements))
        written = {
            name: {trial.id: describer(trial.own.shots) for trial in self.trials}
            for name, describer in self.scoring.describers.items()
        }
        full = {drawn: answers for drawn, answers in self.answers.items() if "@" not in drawn[1]}
        write_samples(self.out / "samples.jsonl", self.dataset.users, full, judgements, written)
        values = {name: item_values(name, row, judgements) for name, row in rewards.items()}
        games = all_games(self.judge, self.dataset.users, self.answers, judgements, self._samplings, values)
        write_games(self.out / GAMES_FILE, games)
        base = {answer.item: answer.text for answer in self.answers.get(("base", "plain"), ())}
        others = {judge: said for judge, said in self.panel.said.items() if judge != HEADLINE}
        values = {name: row | judged_values(name, others) for name, row in values.items()}
        write_items(self.out / ITEMS_FILE, self.trials, self.dataset.users, measured, values, base)

    def _with_models(self) -> None:
        """Everything that needs weights, one set of weights after the other."""
        for source, views in self.scoring.wanted(self.methods).items():
            self.scoring.score(source, views)
            for name in self.methods:
                if self.weights.source(name) == source:
                    self._answer(name)
                    self.tax.answer(name, self.scoring.describers.get(name))
        self.tax.answer("base")
        if self.config.answers and "base" not in self.methods:
            self._answer("base")

    def _answer(self, name: str) -> None:
        guided = METHODS[name].context in ("shots", "both")
        for sampling in self.config.samplings if name != "base" else ("plain",):
            if self.config.answers and (guided or sampling == "plain"):
                self.answers[name, sampling] = self._drawn(name, sampling, self.trials)
        if self.config.answers and guided:
            for k in self.config.answer_ladder:
                if k < self.config.shots:
                    few = f"{self._headline_sampling(name)}@{k}"
                    self.answers[name, few] = self._drawn(name, few, [trial.first(k) for trial in self.trials])

    def _drawn(self, name: str, sampling: str, trials: Sequence[Trial]) -> list[Answer]:
        source, context = self.weights.source(name), METHODS[name].context
        return draw_answers(
            lambda: self.weights.load(source),
            self.weights.renderer(context),
            context,
            trials,
            self.config,
            method=name,
            sampling=sampling,
            path=self.out / name / "answers.jsonl",
            fingerprint=self.weights.fingerprint(source),
            describer=self.scoring.describers.get(name),
            progress=self.progress,
        )

    def _qualities(self) -> dict[AnswerKey, dict[str, Quality]]:
        """The judge-free measures of every answer, by item id; word rarities are counted over all prompts."""
        everything = [answer for answers in self.answers.values() for answer in answers]
        log_probs = iter(
            answer_log_probs(
                lambda: self.weights.load(None),
                self.weights.renderer("none"),
                everything,
                path=self.out / "fluency.jsonl",
                fingerprint=self.weights.fingerprint(None),
                progress=self.progress,
            )
            if everything
            else ()
        )
        closeness = Closeness({preference.prompt for preference in self.dataset})
        found = {}
        for drawn, answers in self.answers.items():
            values = [next(log_probs) for _ in answers]
            rows = measure_quality([a.prompt for a in answers], [a.text for a in answers], values, closeness)
            found[drawn] = {answer.item: row for answer, row in zip(answers, rows, strict=True)}
        return found

    def _answer_estimates(self, drawn: AnswerKey, rows: Mapping[str, Quality]) -> dict[str, Estimate]:
        name, sampling = drawn
        items = [(answer.user, answer.item) for answer in self.answers[drawn]]
        broken = {item: bool(broken_floors(quality, self.config.floors)) for item, quality in rows.items()}
        unfinished = {answer.item: not answer.finished for answer in self.answers[drawn]}
        found = {} if "@" in sampling else quality_measures(items, rows, broken, unfinished, sampling)
        return self.panel.measures(drawn, headline=sampling == self._headline_sampling(name)) | found

    def _headline_sampling(self, name: str) -> Sampling:
        wanted = self.config.headline_sampling
        return wanted if (name, wanted) in self.answers else "plain"

    @property
    def _samplings(self) -> dict[str, Sampling]:
        """What the win rate of each method is of."""
        return {name: self._headline_sampling(name) for name in self.methods if name != "base"}

    def _true_rewards(self) -> Regrets | None:
        """The users' own utilities; None where users or judge have none."""
        people = [self.dataset.users[trial.user] for trial in self.trials]
        if not isinstance(self.judge, TextUtility) or not all(user.traits for user in people):
            return None
        return Regrets(self.judge, self.dataset, self.trials)

    def _ceiling(self, known: Regrets | None) -> Ceiling | None:
        if known is None or not isinstance(self.judge, TextUtility):
            return None
        return Ceiling(self.judge, self.prior[1], self.trials, self.probes, self.items, self.config)

    @property
    def _lead(self) -> str:
        names = [*self.methods, *(entry.name for entry in self.external)]
        return "fspo" if "fspo" in names else names[-1]

    def _details(
        self, rewards: Mapping[str, Rewards], judgements: Mapping[AnswerKey, Sequence[Judgement]]
    ) -> dict[str, Any]:
        return {
            "model": self.weights.model,
            "compared": self._lead,
            "judge_kind": _kind(self.judge),
            "observer_prior": self.prior[0],
            "judge": self._judge(self.panel.judges.get(HEADLINE) or self.judge),  # without answers the panel is empty
            "judges": {name: self._judge(judge) for name, judge in self.panel.judges.items() if name != HEADLINE},
            "rewards": {name: list(row.variants) for name, row in rewards.items()},
            "reward_models": {name: {"unread": row.own.unread} for name, row in rewards.items() if row.external},
            "training_shots": {name: list(row.shots) for name, row in self.trained.items() if row.shots},
            "untraced": self.untraced,
            "too_long": self.too_long,
            "robustness": varied_setting(self.config, self.probes),
            "samplings": self._samplings if judgements else {},
            "dropped_shots": {name: row.own.dropped_shots for name, row in rewards.items()}
            | {
                f"{name}, {sampling} answers": sum(answer.dropped_shots for answer in answers)
                for (name, sampling), answers in self.answers.items()
            },
            "descriptions": {
                name: description_cost([describer.of(trial.own.shots) for trial in self.trials])
                for name, describer in self.scoring.describers.items()
            },
            "judgements": {f"{name}, {sampling}": counts(rows) for (name, sampling), rows in judgements.items()},
        } | setting(self.config, self.trials)

    def _judge(self, judge: Comparer | None) -> dict[str, str] | None:
        """Which judge this is; None where there is none."""
        if judge is None:
            return None
        prompts = {query.prompt for trial in self.trials for query in trial.own.queries}
        return {"kind": type(judge).__qualname__, "digest": judge_digest(judge, prompts)}


def _said_unread(rewards: Mapping[str, Rewards]) -> list[str]:
    """A sentence on each reward model that gave nothing on some pairs, which count as no decision."""
    return [
        f"The reward model '{name}' gave no score on {row.own.unread} of {len(row.own)} pairs, under all conditions; "
        "they count as no decision."
        for name, row in rewards.items()
        if row.own.unread
    ]


def _whom_it_knows(judge: Comparer | None, users: Iterable[User]) -> list[User]:
    """Those whose utilities the judge can tell: one that was fitted to others may lack what they mind."""
    if not isinstance(judge, AttributeJudge | TopicJudge):
        return list(users)
    return [user for user in users if judge.knows({name.partition(OWN)[0] for name, w in user.traits.items() if w})]


def _kind(judge: Comparer | None) -> str:
    if judge is None:
        return "none"
    return "attributes" if isinstance(judge, TextUtility) else "other"


def _json(row: Mapping[str, Estimate]) -> dict[str, dict[str, Any]]:
    return {measure: estimate.to_json() for measure, estimate in row.items()}
