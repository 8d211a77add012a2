"""Every method's and every reward model's scores on the items of an evaluation, with what each is measured against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fspo.evaluation.config import percent
from fspo.evaluation.context import Evaluation
from fspo.evaluation.metrics.rewards import Rewards
from fspo.evaluation.metrics.table import Table
from fspo.evaluation.scoring.descriptions import Describer, corrupt_trials, describe_all
from fspo.evaluation.scoring.logprob_scores import Scorer, Scores, scored_passes, varied_passes
from fspo.evaluation.scoring.reward_models.loading import ExternalRewardModel
from fspo.evaluation.scoring.reward_models.scoring import external_scores
from fspo.evaluation.scoring.weights import Source
from fspo.methods.table import METHODS, MethodContext

__all__ = ["ScoringStage", "View"]

View = tuple[MethodContext, str]
"""A context, and the method that writes the description in it; empty for the users' own."""


@dataclass
class ScoringStage:
    """The scores of one evaluation, gathered one set of weights after the other."""

    evaluation: Evaluation
    describers: dict[str, Describer] = field(default_factory=dict)
    """Method -> its descriptions, of methods that write some."""
    _scores: dict[tuple[Source, View], Scores] = field(default_factory=dict)

    def wanted(self, methods: Sequence[str]) -> dict[Source, dict[View, str]]:
        """Weights -> what they are shown -> the folder of the scores, for methods and what these are measured against.

        Methods that describe users have done so afterwards.
        """
        for name in methods:
            if METHODS[name].describes:
                self.describers[name] = self._describe(name)
        wanted: dict[Source, dict[View, str]] = {}
        for name in methods:
            (source, view), (reference, seen) = self._sides(name)
            wanted.setdefault(source, {})[view] = name
            wanted.setdefault(reference, {}).setdefault(seen, f"{name}-reference")
        return wanted

    def score(self, source: Source, views: dict[View, str]) -> None:
        """Score all trials by these weights, under each view."""
        for view, name in views.items():
            self._scores[source, view] = self._score(source, view, name)

    def rewards(self, name: str) -> Rewards:
        """A method's scores and its reference's."""
        own, reference = (self._scores[side] for side in self._sides(name))
        return self._rewards(own, None if reference is own else reference)

    def external(self, model: ExternalRewardModel) -> Rewards:
        """The scores of a reward model, which is its own reference."""
        evaluation = self.evaluation
        path, progress = evaluation.out / model.name / "margins.jsonl", evaluation.progress
        scores = external_scores(
            model, evaluation.trials, evaluation.probes, evaluation.config, path=path, progress=progress
        )
        if model.not_kept:
            progress.say(model.not_kept)
        return self._rewards(scores, None, external=True)

    def corrupted(self, name: str) -> Table:
        """Accuracy where part of the description is replaced by words of others.

        Measured where a method of the run describes users itself, and for users' own descriptions beside it; by the
        antisymmetric reward where that is the headline, else by that of a single context. At 0% it is the accuracy.
        """
        described = METHODS[name].describes or METHODS[name].context == "description"
        if not (described and self.describers):
            return {}
        config, variant = self.evaluation.config, self.rewards(name).headline
        found = {}
        for share in sorted({0.0, *config.corruption}):
            own, reference = (
                self._score(source, view, name, share)
                if share and view[0] != "none" and (number == 0 or variant == "reference")
                else self._scores[source, view]
                for number, (source, view) in enumerate(self._sides(name))
            )
            rewards = self._rewards(own, reference)
            found[f"corrupted_accuracy/{percent(share)}%"] = rewards.accuracies(variant, config.shots)
        return found

    def _rewards(self, own: Scores, reference: Scores | None, *, external: bool = False) -> Rewards:
        return Rewards(own, reference, self.evaluation.items, self.evaluation.config, external)

    def _sides(self, name: str) -> tuple[tuple[Source, View], tuple[Source, View]]:
        """A method's weights and what they are shown, and the same of what its implicit reward is measured against."""
        weights, row = self.evaluation.weights, METHODS[name]
        own = weights.source(name), (row.context, name if row.describes else "")
        if row.reward_reference == "start" and row.trains:
            return own, (weights.start(name), own[1])
        return own, (own[0], ("none", ""))

    def _describe(self, name: str) -> Describer:
        """Let a method write all the descriptions that it is scored or asked with."""
        evaluation, config, weights = self.evaluation, self.evaluation.config, self.evaluation.weights
        model = weights.loadable(weights.source(name), "both")
        few = [trial.first(k) for trial in evaluation.trials for k in config.answer_ladder if config.answers]
        shots = [own.shots for trial in (*evaluation.trials, *few) for own in (trial.own, trial.own.flip_shots())]
        shown = [
            *(scored_passes(model.renderer, trial, config, described=True)[0] for trial in evaluation.trials),
            *(varied_passes(model.renderer, probe, config, described=True) for probe in evaluation.probes),
        ]
        shots += [one.episode.first_shots(k).shots for passes in shown for one in passes for k in one.rungs]
        return describe_all(
            model,
            shots,
            max_new_tokens=config.description_tokens,
            path=evaluation.out / name / "descriptions.jsonl",
            name=name,
            progress=evaluation.progress,
        )

    def _score(self, source: Source, view: View, name: str, corruption: float = 0.0) -> Scores:
        """Score all trials; with `corruption` only at the full shot count, given a corrupted description."""
        evaluation, (context, writer) = self.evaluation, view
        describer, trials, config = self.describers.get(writer), evaluation.trials, evaluation.config
        if corruption:
            mirrored = config.headline_reward == "antisymmetric"
            config = config.model_copy(update={"ladder": (), "label_flip": mirrored, "user_swap": False})
            describer = describer and describer.with_corruption(corruption, trials)
            trials = corrupt_trials(trials, corruption) if context == "description" else trials
        label = f"{name}, {corruption:.0%} corrupted" if corruption else name
        model, folder = evaluation.weights.loadable(source, context), evaluation.out / name
        scorer = Scorer(model, config, label, describer, evaluation.progress)
        scores = scorer.score(trials, folder / "margins.jsonl")
        if corruption or context not in ("shots", "both") or not evaluation.probes:
            return scores
        return scores.joined(scorer.vary(evaluation.probes, folder / "variations.jsonl"))
