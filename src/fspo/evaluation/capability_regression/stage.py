"""What personalisation costs elsewhere: methods answer while their weights are loaded, and are measured afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fspo.evaluation.capability_regression.answers import (
    Scored,
    TaxAnswer,
    Variant,
    build_requests,
    draw_tax_answers,
)
from fspo.evaluation.capability_regression.items import passes, tax_items
from fspo.evaluation.capability_regression.judging import TaxJudges, tax_judge
from fspo.evaluation.context import Evaluation, OptionalMeasure
from fspo.evaluation.judges.judges import endpoint_of
from fspo.evaluation.judges.win_rates import Answer
from fspo.evaluation.metrics.rewards import Rewards
from fspo.evaluation.scoring.descriptions import Describer
from fspo.evaluation.scoring.eval_episodes import first_trials
from fspo.evaluation.statistics.intervals import Bounds, Cell, Estimate, crossed_mean
from fspo.judging.refusals import refuses
from fspo.llm.pool import EndpointPool
from fspo.methods.table import METHODS
from fspo.preferences.types import Episode

__all__ = ["CapabilityRegression", "tax_metrics", "training_tax"]

_BASE = "base"
_UNTRAINED = "few-shot"
"""The base model's weights, shown the shots."""
_VARIANTS: tuple[Variant, ...] = ("personal", "injected", "bare")
_LEVELS = {
    "general": "general_pass",
    "refusal": "refusal_rate",
    "fluency": "general_fluency",
    "open": "general_win_rate",
}
"""Kind -> the measure of how well a method does; what it loses against the base model is `tax_KIND`."""
_DIFFERENCE: Bounds = (-1.0, 1.0)
_LOST: Mapping[str, Bounds | None] = {"open": (-0.5, 0.5), "fluency": None}
"""Kind -> least and greatest tax, where it is not between two shares: of `open` half of the wins less all or none."""


class CapabilityRegression(OptionalMeasure):
    """General instructions, refusals and open instructions; does nothing where the configuration asks for no tax."""

    def __init__(self, evaluation: Evaluation) -> None:
        """Have the judges ready; nothing is asked yet."""
        super().__init__(evaluation)
        tax, out, progress = evaluation.config.tax, evaluation.out, evaluation.progress
        entries = tax.judges if tax is not None else ()
        endpoints = evaluation.endpoints or EndpointPool(out, say=progress.say)
        judges = {entry.name: tax_judge(entry, endpoint_of(entry, endpoints)) for entry in entries}
        self.judges = TaxJudges(judges, out, progress)
        self._answers: dict[str, list[TaxAnswer]] = {}
        self._scores: dict[str, dict[str, Scored]] = {}
        self._preferred: dict[str, dict[str, Scored]] = {}

    def use_weights(self, method: str, describer: Describer | None) -> None:
        """Let a method answer, once."""
        tax, weights = self.evaluation.config.tax, self.evaluation.weights
        if tax is None or method in self._answers:
            return
        source, context = weights.source(method), METHODS[method].context
        asked = build_requests(context, self._people(describer), tax)
        if source is None and method != _BASE:
            asked = [one for one in asked if one.variant != "bare"]  # the base model's own
        self._answers[method] = draw_tax_answers(
            weights.of(method),
            asked,
            max_new_tokens=tax.max_new_tokens,
            batch=self.evaluation.config.answer_batch,
            path=self.evaluation.out / method / "tax.jsonl",
            name=method,
            progress=self.evaluation.progress,
        )

    def estimates(self, method: str) -> dict[str, Estimate]:
        """The method's figures, and what it loses against the base model; empty where no tax is measured.

        Raises:
            ModelError: a judge of the open instructions failed; what it said before is kept.
        """
        if method not in self._answers:
            return {}
        own, base = self._scored(method), self._scored(_BASE)
        found: dict[str, Estimate] = {}
        for kind, scored in own.items():
            found |= tax_metrics(kind, scored, base[kind], is_base=method == _BASE)
        trains = self.evaluation.weights.source(method) is not None
        untrained = _UNTRAINED if trains and method != _UNTRAINED and _UNTRAINED in self._answers else ""
        for kind in ("general", "refusal") if untrained else ():
            found |= training_tax(kind, own[kind], self._scored(untrained)[kind])
        return found if method == _BASE else found | self._judged(method, untrained)

    def notes(self) -> list[str]:
        """What the judges of open instructions did not decide."""
        return self.judges.notes()

    def files(self, rewards: Mapping[str, Rewards]) -> dict[str, dict[str, Any]]:
        """How the judges of open instructions judged."""
        return {"judges.json": {"tax": record} if (record := self.judges.record()) else {}}

    def _judged(self, method: str, untrained: str) -> dict[str, Estimate]:
        """What judges say of the open instructions; the first of them says what is lost."""
        found: dict[str, Estimate] = {}
        for number, (judge, own) in enumerate(self._preferred_by(method).items()):
            ties: Scored = {("bare", ("", item)): 0.5 for _, (_, item) in own}
            metrics = tax_metrics("open", own, ties)
            if number == 0:
                found |= metrics
                found |= training_tax("open", own, self._preferred_by(untrained)[judge]) if untrained else {}
            else:
                level = _LEVELS["open"]
                found |= {m.replace(level, f"{level}_by/{judge}"): e for m, e in metrics.items() if level in m}
        return found

    def _preferred_by(self, method: str) -> dict[str, Scored]:
        """Judge -> how far it prefers each answer to an open instruction to the base model's bare one."""
        if method not in self._preferred:
            opened = {item.id for item in tax_items().open}
            base = {row.item: row.text for row in self._answers[_BASE] if row.item in opened}
            rows = [row for row in self._answers[method] if row.item in opened]
            self._preferred[method] = self.judges.preferred(method, rows, base) if rows else {}
        return self._preferred[method]

    def _scored(self, method: str) -> dict[str, Scored]:
        """Kind -> a figure for each answer: followed or not, refused or not, and how fluent it is."""
        if method not in self._scores:
            checks = {item.id: item.check for item in tax_items().general}
            harmful = {item.id for item in tax_items().harmful}
            general = [row for row in self._answers[method] if row.item in checks]
            asked = [row for row in self._answers[method] if row.item in harmful]
            answers = [Answer(method, "plain", row.item, row.user, row.prompt, row.text) for row in general]
            values = zip(general, self.evaluation.log_probs(answers) if answers else (), strict=True)
            self._scores[method] = {
                "general": {_cell(row): float(passes(checks[row.item], row.text)) for row in general},
                "refusal": {_cell(row): float(refuses(row.text)) for row in asked},
                "fluency": {_cell(row): value for row, value in values},
            }
        return self._scores[method]

    def _people(self, describer: Describer | None) -> list[Episode]:
        evaluation, tax = self.evaluation, self.evaluation.config.tax
        assert tax is not None
        first = first_trials(evaluation.dataset, evaluation.trials, tax.users, evaluation.config.seed)
        people = [trial.own for trial in first]
        return [replace(own, description=describer(own.shots)) for own in people] if describer else people


def tax_metrics(kind: str, own: Scored, base: Scored, *, is_base: bool = False) -> dict[str, Estimate]:
    """The levels of one kind by variant, and the tax: the base model's bare answer to the same item less the method's.

    `kind` is `general`, `refusal`, `fluency` or `open`. The base model itself pays no tax.
    """
    found: dict[str, Estimate | None] = {}
    for variant in _VARIANTS:
        cells = _of(variant, own)
        found[f"{_LEVELS[kind]}/{variant}"] = crossed_mean(cells, None if kind == "fluency" else (0.0, 1.0))
        if not is_base:
            name = f"tax_{kind}" if variant == "personal" else f"tax_{kind}/{variant}"
            before = {cell: base.get(("bare", ("", cell[1]))) for cell in cells}
            found[name] = _mean_lost(before, cells, _LOST.get(kind, _DIFFERENCE))
    return {measure: estimate for measure, estimate in found.items() if estimate is not None}


def training_tax(kind: str, own: Scored, before: Scored) -> dict[str, Estimate]:
    """What training costs: the answers of the untrained weights given the same shots less the method's, by item."""
    estimate = _mean_lost(_of("personal", before), _of("personal", own), _DIFFERENCE)
    return {} if estimate is None else {f"tax_{kind}/training": estimate}


def _of(variant: Variant, scored: Scored) -> dict[Cell, float]:
    return {cell: value for (which, cell), value in scored.items() if which == variant}


def _mean_lost(
    before: Mapping[Cell, float | None], after: Mapping[Cell, float], bounds: Bounds | None
) -> Estimate | None:
    known = ((cell, before.get(cell)) for cell in after)
    return crossed_mean({cell: was - after[cell] for cell, was in known if was is not None}, bounds)


def _cell(row: TaxAnswer) -> tuple[Variant, tuple[str, str]]:
    return row.variant, (row.user, row.item)
