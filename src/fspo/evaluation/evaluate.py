"""Evaluation from end to end: held-out users on held-out questions, every method on the same items, resumable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fspo.evaluation.comparisons import comparisons
from fspo.evaluation.config import EvaluationConfig, Sampling
from fspo.evaluation.describing import Describer, describe_all, description_cost, spoilt
from fspo.evaluation.fluency import answer_log_probs
from fspo.evaluation.measures import Rewards, answer_measures, items_at, mean_of, quality_measures, reward_measures
from fspo.evaluation.observer import TextUtility, family_of, ideal_observer, sampled_users
from fspo.evaluation.quality import Closeness, Quality, measure_quality
from fspo.evaluation.records import Drawn, counts, setting, write_samples
from fspo.evaluation.rewards import Scores, score_trials, scored_passes
from fspo.evaluation.sensitivity import Item
from fspo.evaluation.statistics import Estimate
from fspo.evaluation.trials import Trial, build_trials
from fspo.evaluation.weights import Source, Weights
from fspo.evaluation.winrates import Answer, Comparer, Judgement, draw_answers, judge_pairs
from fspo.files import write_json
from fspo.methods.table import METHODS, MethodContext
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.sampling import check_no_leak
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
    progress: Progress | None = None,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Measure every method and write `metrics.json`, with what it rests on, into `out`.

    Besides: `margins.jsonl`, `answers.jsonl` and `judgements.jsonl` of each method, `samples.jsonl`, `observer.json`,
    `comparisons.json` and `details.json`. Called again with the same arguments it goes on where it was stopped.

    Args:
        config: what to measure.
        dataset: the test part, held-out users on held-out questions.
        policies: method -> policy folder, None for a method that trains nothing.
        model: the base model, by name, path or hub id.
        out: folder of the evaluation.
        judge: says which of two answers a user prefers; one with a `utility` also gives the ideal observer.
            Without a judge no answers are drawn, and there is neither a win rate nor an observer.
        train: the training part, which may share no user and no question with the dataset.
        progress: shows the stages.

    Returns:
        method -> measure -> {value, low, high, users, items}.

    Raises:
        DataError: a leak, naming it; or a user has too few preferences.
        ConfigError: a method is unknown or lacks its policy.
    """
    if train is not None:
        check_no_leak(train, dataset)
    if judge is None:
        config = config.model_copy(update={"answers": 0})
    weights = Weights(model, policies, dtype=config.dtype, max_length=config.max_length)
    stage = _Stage(config, dataset, list(policies), weights, out, judge, progress or Silent())
    return stage.run()


View = tuple[MethodContext, str]
"""A context, and the method that writes the description in it; empty for the users' own."""


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

    def __post_init__(self) -> None:
        """Draw the trials and fix the items."""
        self.trials: list[Trial] = build_trials(self.dataset, self.config)
        self.items: tuple[Item, ...] = tuple(
            (trial.user, trial.item(number)) for trial in self.trials for number in range(len(trial.own.queries))
        )
        self._scores: dict[tuple[Source, View], Scores] = {}
        self._describers: dict[str, Describer] = {}
        self.answers: dict[Drawn, list[Answer]] = {}

    def run(self) -> dict[str, dict[str, dict[str, Any]]]:
        """All stages in order; the models are read once each, and the base model once more for fluency."""
        self._with_models()
        rewards = {name: self._rewards(name) for name in self.methods}
        estimates = {name: reward_measures(row) | self._corrupted(name) for name, row in rewards.items()}
        qualities = self._qualities()
        judgements = self._judgements(qualities)
        for drawn, rows in qualities.items():
            if drawn[0] in estimates:
                estimates[drawn[0]] |= self._answer_estimates(drawn, rows, judgements.get(drawn))
        metrics = {name: _json(row) for name, row in estimates.items()}
        write_json(self.out / "observer.json", _json(self._observer()))
        samplings = {name: self._headline_sampling(name) for name in self.methods}
        compared = comparisons(self._lead, rewards, judgements, samplings)
        write_json(self.out / "comparisons.json", {name: _json(row) for name, row in compared.items()})
        write_json(self.out / "details.json", self._details(rewards, judgements))
        written = {
            name: {trial.id: describer(trial.own.shots) for trial in self.trials}
            for name, describer in self._describers.items()
        }
        write_samples(self.out / "samples.jsonl", self.dataset.users, self.answers, judgements, written)
        write_json(self.out / "metrics.json", metrics)
        return metrics

    def _with_models(self) -> None:
        """Everything that needs weights, one set of weights after the other."""
        for name in self.methods:
            if METHODS[name].describes:
                self._describers[name] = self._describe(name)
        wanted: dict[Source, dict[View, str]] = {}
        for name in self.methods:
            wanted.setdefault(self.weights.source(name), {})[_view(name)] = name
            source, reference = self._reference_of(name)
            wanted.setdefault(source, {}).setdefault(reference, f"{name}-reference")
        for source, views in wanted.items():
            for view, name in views.items():
                self._scores[source, view] = self._score(source, view, name)
            for name in self.methods:
                if self.weights.source(name) == source:
                    self._answer(name)
        if self.config.answers and "base" not in self.methods:
            self._answer("base")

    def _describe(self, name: str) -> Describer:
        """Let a method write all the descriptions that it is scored or asked with."""
        source, renderer = self.weights.source(name), self.weights.renderer("both")
        shots = [own.shots for trial in self.trials for own in (trial.own, trial.own.flip_shots())]
        for trial in self.trials:
            for _, episode, rungs in scored_passes(renderer, "both", trial, self.config, described=True)[0]:
                shots += [episode.first_shots(k).shots for k in rungs]
        return describe_all(
            lambda: self.weights.load(source),
            renderer,
            shots,
            max_new_tokens=self.config.description_tokens,
            path=self.out / name / "descriptions.jsonl",
            fingerprint=self.weights.fingerprint(source),
            name=name,
            progress=self.progress,
        )

    def _reference_of(self, name: str) -> tuple[Source, View]:
        """Weights a method's implicit reward is measured against, and what these are shown."""
        if METHODS[name].reward_reference == "start" and METHODS[name].trains:
            return self.weights.start(name), _view(name)
        return self.weights.source(name), ("none", "")

    def _rewards(self, name: str) -> Rewards:
        own = self._scores[self.weights.source(name), _view(name)]
        reference = self._scores[self._reference_of(name)]
        return Rewards(own, None if reference is own else reference, self.items, self.config)

    def _score(self, source: Source, view: View, name: str, corruption: float = 0.0) -> Scores:
        """Score all trials; with `corruption` only at the full shot count, given a spoilt description."""
        context, writer = view
        describer, trials, config = self._describers.get(writer), self.trials, self.config
        if corruption:
            config = config.model_copy(update={"ladder": (), "label_flip": False, "user_swap": False})
            describer = describer and describer.with_corruption(corruption, self.trials)
            trials = spoilt(trials, corruption) if context == "description" else trials
        return score_trials(
            lambda: self.weights.load(source),
            self.weights.renderer(context),
            context,
            trials,
            config,
            path=self.out / name / "margins.jsonl",
            fingerprint=self.weights.fingerprint(source),
            name=f"{name}, {corruption:.0%} corrupted" if corruption else name,
            describer=describer,
            progress=self.progress,
        )

    def _corrupted(self, name: str) -> dict[str, Estimate]:
        """Accuracy where part of the description is replaced by words of others.

        Measured where a method of the run describes users itself, and for users' own descriptions beside it.
        """
        described = METHODS[name].describes or METHODS[name].context == "description"
        if not (described and self._describers):
            return {}
        sides = ((self.weights.source(name), _view(name)), self._reference_of(name))
        found = {}
        for share in sorted({0.0, *self.config.corruption}):
            own, reference = (
                self._score(source, view, name, share) if share and view[0] != "none" else self._scores[source, view]
                for source, view in sides
            )
            rows = Rewards(own, reference, self.items, self.config).accuracies("reference", self.config.shots)
            found[f"corrupted_accuracy/{share:.0%}"] = mean_of(rows)
        return {measure: estimate for measure, estimate in found.items() if estimate is not None}

    def _answer(self, name: str) -> None:
        source, context = self.weights.source(name), METHODS[name].context
        guided = context in ("shots", "both")
        for sampling in self.config.samplings if name != "base" else ("plain",):
            if self.config.answers and (guided or sampling == "plain"):
                self.answers[name, sampling] = draw_answers(
                    lambda: self.weights.load(source),
                    self.weights.tokenizer,
                    self.weights.renderer(context),
                    context,
                    self.trials,
                    self.config,
                    method=name,
                    sampling=sampling,
                    path=self.out / name / "answers.jsonl",
                    fingerprint=self.weights.fingerprint(source),
                    describer=self._describers.get(name),
                    progress=self.progress,
                )

    def _qualities(self) -> dict[Drawn, dict[str, Quality]]:
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

    def _judgements(self, qualities: Mapping[Drawn, Mapping[str, Quality]]) -> dict[Drawn, list[Judgement]]:
        found: dict[Drawn, list[Judgement]] = {}
        base = {answer.item: answer for answer in self.answers.get(("base", "plain"), [])}
        for (name, sampling), answers in self.answers.items():
            if name != "base" and self.judge is not None:
                found[name, sampling] = judge_pairs(
                    self.judge,
                    self.dataset.users,
                    answers,
                    base,
                    qualities[name, sampling],
                    qualities["base", "plain"],
                    self.config.floors,
                    path=self.out / name / "judgements.jsonl",
                    progress=self.progress,
                )
        return found

    def _answer_estimates(
        self, drawn: Drawn, rows: Mapping[str, Quality], judgements: Sequence[Judgement] | None
    ) -> dict[str, Estimate]:
        name, sampling = drawn
        items = [(answer.user, answer.item) for answer in self.answers[drawn]]
        broken = {item: bool(self.config.floors.broken_by(quality)) for item, quality in rows.items()}
        unfinished = {answer.item: not answer.finished for answer in self.answers[drawn]}
        found = quality_measures(items, rows, broken, unfinished, sampling)
        if judgements:
            headline = sampling == self._headline_sampling(name)
            return answer_measures(judgements, sampling, headline=headline) | found
        return found

    def _headline_sampling(self, name: str) -> Sampling:
        wanted = self.config.headline_sampling
        return wanted if (name, wanted) in self.answers else "plain"

    def _observer(self) -> dict[str, Estimate]:
        """The ideal observer's accuracy at every shot count; empty where users or judge have no utilities."""
        people = [self.dataset.users[trial.user] for trial in self.trials]
        if not isinstance(self.judge, TextUtility) or not all(user.traits for user in people):
            return {}
        names = sorted({name for user in self.dataset.users.values() for name in user.traits})
        family = self.config.observer_prior == "family"
        prior = family_of(self.dataset.users.values()) if family else sampled_users(names, 500, self.config.seed)
        predictions = ideal_observer(
            [(trial.id, trial.own) for trial in self.trials],
            prior,
            self.judge,
            self.config.rungs,
            margin=float(getattr(self.judge, "margin", 0.0)),
            noise=self.config.observer_noise,
        )
        found = {}
        for k in self.config.rungs:
            measured = frozenset(items_at(self.items, k, self.config))
            rows = {(p.user, p.item): p.correct for p in predictions if p.k == k}
            found[f"reward_accuracy@{k}"] = mean_of({item: row for item, row in rows.items() if item in measured})
        return {name: estimate for name, estimate in found.items() if estimate is not None}

    @property
    def _lead(self) -> str:
        return "fspo" if "fspo" in self.methods else self.methods[-1]

    def _details(
        self, rewards: Mapping[str, Rewards], judgements: Mapping[Drawn, Sequence[Judgement]]
    ) -> dict[str, Any]:
        return {
            "model": self.weights.model,
            "compared": self._lead,
            "judge_kind": _kind(self.judge),
            "rewards": {name: list(row.variants) for name, row in rewards.items()},
            "samplings": {name: self._headline_sampling(name) for name in self.methods if name != "base"}
            if judgements
            else {},
            "dropped_shots": {name: row.own.dropped_shots for name, row in rewards.items()}
            | {
                f"{name}, {sampling} answers": sum(answer.dropped_shots for answer in answers)
                for (name, sampling), answers in self.answers.items()
            },
            "descriptions": {
                name: description_cost([describer.of(trial.own.shots) for trial in self.trials])
                for name, describer in self._describers.items()
            },
            "judgements": {f"{name}, {sampling}": counts(rows) for (name, sampling), rows in judgements.items()},
        } | setting(self.config, self.trials)


def _view(name: str) -> View:
    """What a method's weights are shown, and which method wrote the description among it."""
    row = METHODS[name]
    return row.context, name if row.describes else ""


def _kind(judge: Comparer | None) -> str:
    if judge is None:
        return "none"
    return "attributes" if isinstance(judge, TextUtility) else "other"


def _json(row: Mapping[str, Estimate]) -> dict[str, dict[str, Any]]:
    return {measure: estimate.to_json() for measure, estimate in row.items()}
