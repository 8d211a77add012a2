"""Every method's and every reward model's scores on the items of an evaluation, with what each is measured against."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fspo.evaluation.config import REFERENCE, RewardVariant, percent
from fspo.evaluation.context import Evaluation
from fspo.evaluation.metrics.rewards import Rewards
from fspo.evaluation.metrics.table import Table
from fspo.evaluation.scoring.descriptions import Describer, corrupt_trials, describe_all
from fspo.evaluation.scoring.eval_episodes import Trial
from fspo.evaluation.scoring.logprob_scores import Scorer, Scores, scored_passes, varied_passes
from fspo.evaluation.scoring.reward_models.loading import ExternalRewardModel
from fspo.evaluation.scoring.reward_models.scoring import external_scores
from fspo.evaluation.scoring.variations import Probe
from fspo.evaluation.scoring.weights import LoadableModel, Source
from fspo.methods.table import ADAPTATIONS, METHODS, MethodContext
from fspo.preferences.types import Preference
from fspo.records import KeyedLog

__all__ = ["TIMED", "ScoringStage", "UserCost", "View"]

View = tuple[MethodContext, str, str]
"""A context; the method whose own code makes something of the shots: writes the description, or changes the policy;
empty for what users give themselves; and the method whose tokenizer shows it, empty for the base model's."""
_UNWRITTEN: Mapping[MethodContext, MethodContext] = {"description": "none", "both": "shots"}
"""Contexts without the text that an adaptation writes."""
TIMED = 4
"""Users whose adaptation is timed."""


@dataclass(frozen=True)
class UserCost:
    """What the adaptation to one user takes."""

    seconds: float
    numbers: int
    bytes: int
    """What is stored, besides the shots that stand in the context."""


@dataclass
class ScoringStage:
    """The scores of one evaluation, gathered one set of weights after the other."""

    evaluation: Evaluation
    describers: dict[str, Describer] = field(default_factory=dict)
    """Method -> its descriptions, of methods that write some."""
    user_costs: dict[str, list[UserCost]] = field(default_factory=dict)
    """Method -> what it takes to adapt to some users, of methods with an adaptation."""
    _scores: dict[tuple[Source, View], Scores] = field(default_factory=dict)

    def describe(self, methods: Sequence[str]) -> None:
        """Let the methods that describe users write all the descriptions that they are scored or asked with."""
        evaluation = self.evaluation
        for name in methods:
            if METHODS[name].writes_ahead:
                self.describers[name] = describe_all(
                    evaluation.weights.of(name),
                    self.described(name),
                    max_new_tokens=evaluation.config.description_tokens,
                    path=self.descriptions(name),
                    name=name,
                    progress=evaluation.progress,
                )

    def descriptions(self, name: str) -> Path:
        """The log of a method's descriptions."""
        return self.evaluation.out / name / "descriptions.jsonl"

    def wanted(self, methods: Sequence[str]) -> dict[Source, dict[View, str]]:
        """Weights -> what they are shown -> the folder of the scores, of methods and what they are measured against."""
        wanted: dict[Source, dict[View, str]] = {}
        for name in methods:
            (source, view), (reference, seen) = self._sides(name)
            wanted.setdefault(source, {})[view] = name
            wanted.setdefault(reference, {}).setdefault(seen, f"{name}{REFERENCE}")
        return wanted

    def score(self, source: Source, views: dict[View, str]) -> None:
        """Score all trials by these weights, under each view."""
        for view, name in views.items():
            self._scores[source, view] = self._score(source, view, name)

    def rewards(self, name: str) -> Rewards:
        """A method's scores and its reference's."""
        sides = self._sides(name)
        own, reference = (self._scores[side] for side in sides)
        found = self._rewards(own, None if reference is own else reference)
        return replace(found, other_weights=sides[0][0] != sides[1][0])

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
        sides = self.corrupted_sides(name)
        if not sides:
            return {}
        config, variant = self.evaluation.config, self._headline(name)
        found = {}
        for share in sorted({0.0, *config.corruption}):
            own, reference = (
                self._score(*side, name, share) if share and side in sides else self._scores[side]
                for side in self._sides(name)
            )
            rewards = self._rewards(own, reference)
            found[f"corrupted_accuracy/{percent(share)}%"] = rewards.accuracies(variant, config.shots)
        return found

    def corrupted_sides(self, name: str) -> list[tuple[Source, View]]:
        """The weights, and what they are shown, that are scored with corrupted descriptions too; see `corrupted`."""
        described = name in self.describers or METHODS[name].context == "description"
        if not (described and self.describers):
            return []
        measured = 2 if self._headline(name) == "reference" else 1
        return [side for side in self._sides(name)[:measured] if side[1][0] != "none"]

    def _headline(self, name: str) -> RewardVariant:
        """The reward that a method's figures are of, which follows from what its weights are shown."""
        own, reference = (Scores(self.scorer(*side, name)[0].model.context, ()) for side in self._sides(name))
        alike = len(set(self._sides(name))) == 1
        return self._rewards(own, None if alike else reference).headline

    def _rewards(self, own: Scores, reference: Scores | None, *, external: bool = False) -> Rewards:
        return Rewards(own, reference, self.evaluation.items, self.evaluation.config, external)

    def _sides(self, name: str) -> tuple[tuple[Source, View], tuple[Source, View]]:
        """A method's weights and what they are shown, and the same of what its implicit reward is measured against."""
        weights, row = self.evaluation.weights, METHODS[name]
        shown_by = weights.shown_by(name)
        own = weights.source(name), (row.context, name if row.describes or row.adaptation else "", shown_by)
        if row.reward_reference == "start" and own[0] is not None:
            if weights.reads_no_shots(name):
                return own, (weights.start(name), ("none", "", shown_by))
            bare = (_UNWRITTEN.get(row.shown, row.shown), "", shown_by)
            return own, (weights.start(name), bare if row.adaptation else own[1])
        return own, (own[0], ("none", "", shown_by))

    def described(self, name: str) -> list[Sequence[Preference]]:
        """The sets of shots that a method describes users by, to be scored and asked."""
        evaluation, config = self.evaluation, self.evaluation.config
        model = evaluation.weights.of(name)
        few = [trial.first(k) for trial in evaluation.trials for k in config.answer_ladder if config.answers]
        shots = [own.shots for trial in (*evaluation.trials, *few) for own in (trial.own, trial.own.flip_shots())]
        shown = [
            *(
                scored_passes(model.renderer, trial, config, described=True, context=model.context)[0]
                for trial in evaluation.trials
            ),
            *(varied_passes(model.renderer, probe, config, described=True) for probe in evaluation.probes),
        ]
        return [*shots, *(one.episode.first_shots(k).shots for passes in shown for one in passes for k in one.rungs)]

    def scorer(self, source: Source, view: View, name: str, corruption: float = 0.0) -> tuple[Scorer, Sequence[Trial]]:
        """What scores the trials; with `corruption` only at the full shot count, given a corrupted description."""
        evaluation, (context, writer, shown_by) = self.evaluation, view
        describer, trials, config = self.describers.get(writer), evaluation.trials, evaluation.config
        if corruption:
            mirrored = config.headline_reward == "antisymmetric"
            config = config.model_copy(update={"ladder": (), "label_flip": mirrored, "user_swap": False})
            describer = describer and describer.with_corruption(corruption, trials)
            trials = corrupt_trials(trials, corruption) if context == "description" else trials
        method = name.removesuffix(REFERENCE)
        label = name if method == name else f"{method}'s reference (the model that its reward is measured against)"
        label += f", {corruption:.0%} corrupted" if corruption else ""
        weights = evaluation.weights
        model = weights.of(writer) if writer in ADAPTATIONS else weights.loadable(source, context, shown_by)
        return Scorer(model, config, label, describer, evaluation.progress), trials

    def margins(self, name: str) -> Path:
        """The log of the scores in the folder of this name."""
        return self.evaluation.out / name / "margins.jsonl"

    def variations(self, name: str) -> Path:
        """The log of the scores under variations of the shots in the folder of this name."""
        return self.evaluation.out / name / "variations.jsonl"

    def probes(self, view: View) -> Sequence[Probe]:
        """What is measured under variations of the shots, where the weights are shown shots."""
        return self.evaluation.probes if view[0] in ("shots", "both") else ()

    def _score(self, source: Source, view: View, name: str, corruption: float = 0.0) -> Scores:
        """Score all trials; with `corruption` only at the full shot count, given a corrupted description."""
        scorer, trials = self.scorer(source, view, name, corruption)
        describer, writer = scorer.describer, view[1]
        if writer in ADAPTATIONS and describer is not None:
            found = [describer.of(trial.own.shots) for trial in trials]
            self.user_costs[writer] = [UserCost(row.seconds, 0, len(row.text.encode())) for row in found]
        elif writer in ADAPTATIONS:
            self.user_costs[writer] = self._user_costs(scorer.model, writer)
        scores = scorer.score(trials, self.margins(name))
        if corruption or not (probes := self.probes(view)):
            return scores
        return scores.joined(scorer.vary(probes, self.variations(name)))

    def _user_costs(self, model: LoadableModel, name: str) -> list[UserCost]:
        """What it takes to adapt to the first users; their states are used again in the scores."""

        def measure(trials: Sequence[Trial]) -> Iterator[UserCost]:
            assert model.adaptation is not None
            for trial in trials:
                adaptation, started = model.adaptation(), time.monotonic()
                state = adaptation.state(trial.own.shots)
                yield UserCost(seconds=time.monotonic() - started, numbers=state.numbers, bytes=state.bytes)

        wanted = {f"{trial.key}/{model.key}": trial for trial in self.evaluation.trials[:TIMED]}
        log = KeyedLog(self.evaluation.out / name / "users.jsonl", UserCost)
        return log.complete(wanted, measure, title=f"Adapting {name}", progress=self.evaluation.progress)
