"""Every method's and every reward model's scores on the items of an evaluation, with what each is measured against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fspo.evaluation.config import EvaluationConfig, percent
from fspo.evaluation.metrics.measures import Rewards, mean_of
from fspo.evaluation.scoring.descriptions import Describer, describe_all, spoilt
from fspo.evaluation.scoring.eval_episodes import Item, Trial
from fspo.evaluation.scoring.logprob_scores import Scores, score_trials, score_variations, scored_passes, varied_passes
from fspo.evaluation.scoring.reward_models.loading import ExternalRewardModel
from fspo.evaluation.scoring.reward_models.scoring import external_scores
from fspo.evaluation.scoring.variations import Probe
from fspo.evaluation.scoring.weights import Source, Weights
from fspo.evaluation.statistics import Estimate
from fspo.methods.table import METHODS, MethodContext
from fspo.progress import Progress

__all__ = ["ScoringStage", "View"]

View = tuple[MethodContext, str]
"""A context, and the method that writes the description in it; empty for the users' own."""


@dataclass
class ScoringStage:
    """The scores of one evaluation, gathered one set of weights after the other."""

    config: EvaluationConfig
    trials: Sequence[Trial]
    probes: Sequence[Probe]
    items: tuple[Item, ...]
    weights: Weights
    out: Path
    progress: Progress
    describers: dict[str, Describer] = field(default_factory=dict)
    """Method -> its descriptions, of methods that write some."""
    _scores: dict[tuple[Source, View], Scores] = field(default_factory=dict)

    def wanted(self, methods: Sequence[str]) -> dict[Source, dict[View, str]]:
        """Weights -> what they are shown -> the folder of the scores, for methods and what these are measured against.

        Whoever describes users has done so afterwards.
        """
        for name in methods:
            if METHODS[name].describes:
                self.describers[name] = self._describe(name)
        wanted: dict[Source, dict[View, str]] = {}
        for name in methods:
            wanted.setdefault(self.weights.source(name), {})[_view(name)] = name
            source, reference = self._reference_of(name)
            wanted.setdefault(source, {}).setdefault(reference, f"{name}-reference")
        return wanted

    def score(self, source: Source, views: dict[View, str]) -> None:
        """Score all trials by these weights, under each view."""
        for view, name in views.items():
            self._scores[source, view] = self._score(source, view, name)

    def rewards(self, name: str) -> Rewards:
        """A method's scores and its reference's."""
        own = self._scores[self.weights.source(name), _view(name)]
        reference = self._scores[self._reference_of(name)]
        return Rewards(own, None if reference is own else reference, self.items, self.config)

    def external(self, entry: ExternalRewardModel) -> Rewards:
        """The scores of a reward model from elsewhere, which is its own reference."""
        scores = external_scores(
            entry.get,
            self.trials,
            self.probes,
            self.config,
            path=self.out / entry.name / "margins.jsonl",
            fingerprint=entry.fingerprint,
            shots=entry.shots,
            name=entry.name,
            progress=self.progress,
        )
        entry.let_go()
        if entry.not_kept:
            self.progress.say(entry.not_kept)
        return Rewards(scores, None, self.items, self.config, external=True)

    def corrupted(self, name: str) -> dict[str, Estimate]:
        """Accuracy where part of the description is replaced by words of others.

        Measured where a method of the run describes users itself, and for users' own descriptions beside it; by the
        antisymmetric reward where that is the headline, else by that of a single context. At 0% it is the accuracy.
        """
        described = METHODS[name].describes or METHODS[name].context == "description"
        if not (described and self.describers):
            return {}
        sides = ((self.weights.source(name), _view(name)), self._reference_of(name))
        variant = self.rewards(name).headline
        found = {}
        for share in sorted({0.0, *self.config.corruption}):
            own, reference = (
                self._score(source, view, name, share)
                if share and view[0] != "none" and (number == 0 or variant == "reference")
                else self._scores[source, view]
                for number, (source, view) in enumerate(sides)
            )
            rows = Rewards(own, reference, self.items, self.config).accuracies(variant, self.config.shots)
            found[f"corrupted_accuracy/{percent(share)}%"] = mean_of(rows)
        return {measure: estimate for measure, estimate in found.items() if estimate is not None}

    def _describe(self, name: str) -> Describer:
        """Let a method write all the descriptions that it is scored or asked with."""
        source, renderer = self.weights.source(name), self.weights.renderer("both")
        few = [trial.first(k) for trial in self.trials for k in self.config.answer_ladder if self.config.answers]
        shots = [own.shots for trial in (*self.trials, *few) for own in (trial.own, trial.own.flip_shots())]
        for trial in self.trials:
            for _, episode, rungs in scored_passes(renderer, "both", trial, self.config, described=True)[0]:
                shots += [episode.first_shots(k).shots for k in rungs]
        for probe in self.probes:
            shots += [v.episode.shots for v in varied_passes(renderer, probe, self.config, described=True)]
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

    def _score(self, source: Source, view: View, name: str, corruption: float = 0.0) -> Scores:
        """Score all trials; with `corruption` only at the full shot count, given a spoilt description."""
        context, writer = view
        describer, trials, config = self.describers.get(writer), self.trials, self.config
        if corruption:
            mirrored = config.headline_reward == "antisymmetric"
            config = config.model_copy(update={"ladder": (), "label_flip": mirrored, "user_swap": False})
            describer = describer and describer.with_corruption(corruption, self.trials)
            trials = spoilt(trials, corruption) if context == "description" else trials
        model, renderer = lambda: self.weights.load(source), self.weights.renderer(context)
        fingerprint = self.weights.fingerprint(source)
        scores = score_trials(
            model,
            renderer,
            context,
            trials,
            config,
            path=self.out / name / "margins.jsonl",
            fingerprint=fingerprint,
            name=f"{name}, {corruption:.0%} corrupted" if corruption else name,
            describer=describer,
            progress=self.progress,
        )
        if corruption or context not in ("shots", "both") or not self.probes:
            return scores
        varied = score_variations(
            model,
            renderer,
            context,
            self.probes,
            config,
            path=self.out / name / "variations.jsonl",
            fingerprint=fingerprint,
            name=name,
            describer=describer,
            progress=self.progress,
        )
        return scores.joined(varied)


def _view(name: str) -> View:
    """What a method's weights are shown, and which method wrote the description among it."""
    row = METHODS[name]
    return row.context, name if row.describes else ""
