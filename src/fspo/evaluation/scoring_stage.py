"""Every method's and every reward model's scores on the items of an evaluation, with what each is measured against."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from fspo.evaluation.config import REFERENCE, percent
from fspo.evaluation.context import Evaluation
from fspo.evaluation.metrics.rewards import Rewards
from fspo.evaluation.metrics.table import Table
from fspo.evaluation.scoring.descriptions import Describer, corrupt_trials, describe_all
from fspo.evaluation.scoring.eval_episodes import Trial
from fspo.evaluation.scoring.logprob_scores import Scorer, Scores, scored_passes, varied_passes
from fspo.evaluation.scoring.reward_models.loading import ExternalRewardModel
from fspo.evaluation.scoring.reward_models.scoring import external_scores
from fspo.evaluation.scoring.weights import LoadableModel, Source
from fspo.methods.table import ADAPTATIONS, METHODS, MethodContext
from fspo.records import KeyedLog

__all__ = ["TIMED", "UNWRITTEN", "ScoringStage", "UserCost", "View"]

View = tuple[MethodContext, str]
"""A context, and the method whose own code makes something of the shots: writes the description, or changes the
policy; empty for what users give themselves."""
UNWRITTEN: Mapping[MethodContext, MethodContext] = {"description": "none", "both": "shots"}
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

    def wanted(self, methods: Sequence[str]) -> dict[Source, dict[View, str]]:
        """Weights -> what they are shown -> the folder of the scores, for methods and what these are measured against.

        Methods that describe users have done so afterwards.
        """
        for name in methods:
            if METHODS[name].writes_ahead:
                self.describers[name] = self._describe(name)
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
        described = name in self.describers or METHODS[name].context == "description"
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
        own = weights.source(name), (row.context, name if row.describes or row.adaptation else "")
        if row.reward_reference == "start" and own[0] is not None:
            if weights.reads_no_shots(name):
                return own, (weights.start(name), ("none", ""))
            return own, (weights.start(name), (UNWRITTEN.get(row.shown, row.shown), "") if row.adaptation else own[1])
        return own, (own[0], ("none", ""))

    def _describe(self, name: str) -> Describer:
        """Let a method write all the descriptions that it is scored or asked with."""
        evaluation, config, weights = self.evaluation, self.evaluation.config, self.evaluation.weights
        model = weights.of(name)
        few = [trial.first(k) for trial in evaluation.trials for k in config.answer_ladder if config.answers]
        shots = [own.shots for trial in (*evaluation.trials, *few) for own in (trial.own, trial.own.flip_shots())]
        shown = [
            *(
                scored_passes(model.renderer, trial, config, described=True, context=model.context)[0]
                for trial in evaluation.trials
            ),
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
        method = name.removesuffix(REFERENCE)
        label = name if method == name else f"{method}'s reference (the model that its reward is measured against)"
        label += f", {corruption:.0%} corrupted" if corruption else ""
        adapts, folder = writer in ADAPTATIONS, evaluation.out / name
        model = evaluation.weights.of(writer) if adapts else evaluation.weights.loadable(source, context)
        if adapts and describer is not None:
            found = [describer.of(trial.own.shots) for trial in trials]
            self.user_costs[writer] = [UserCost(row.seconds, 0, len(row.text.encode())) for row in found]
        elif adapts:
            self.user_costs[writer] = self._user_costs(model, writer)
        scorer = Scorer(model, config, label, describer, evaluation.progress)
        scores = scorer.score(trials, folder / "margins.jsonl")
        if corruption or context not in ("shots", "both") or not evaluation.probes:
            return scores
        return scores.joined(scorer.vary(evaluation.probes, folder / "variations.jsonl"))

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
