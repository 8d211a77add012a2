"""The tax of every method of an evaluation, drawn while its weights are at hand, measured when all are done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fspo.evaluation.capability_regression.answers import Person, Scored, TaxAnswer, Variant, asked_of, draw_tax_answers
from fspo.evaluation.capability_regression.checks import passes
from fspo.evaluation.capability_regression.items import tax_items
from fspo.evaluation.capability_regression.judging import TaxJudges, obtain_tax_judges
from fspo.evaluation.config import EvaluationConfig
from fspo.evaluation.judges.fluency import answer_log_probs
from fspo.evaluation.judges.win_rates import Answer
from fspo.evaluation.scoring.descriptions import Describer
from fspo.evaluation.scoring.eval_episodes import Trial, pick_users
from fspo.evaluation.scoring.weights import Weights
from fspo.evaluation.statistics import Bounds, Estimate
from fspo.evaluation.statistics.two_way_clustering import crossed_mean
from fspo.judging.refusals import refuses
from fspo.methods.table import METHODS
from fspo.preferences.dataset import PreferenceDataset
from fspo.progress import Progress

__all__ = ["TaxStage", "tax_measures", "training_tax"]

_BASE = "base"
_UNTRAINED = "few-shot"
"""The base model's weights, shown the shots."""
_SHARE: Bounds = (0.0, 1.0)
_DIFFERENCE: Bounds = (-1.0, 1.0)
_LOST: Mapping[str, Bounds] = {"open": (-0.5, 0.5)}
"""Kind -> least and greatest tax, where that is less than between two shares: half of the wins less all or none."""


@dataclass
class TaxStage:
    """Answers and measures; does nothing where the configuration asks for no tax."""

    config: EvaluationConfig
    dataset: PreferenceDataset
    trials: Sequence[Trial]
    weights: Weights
    out: Path
    progress: Progress
    judges: TaxJudges = field(init=False)
    _answers: dict[str, list[TaxAnswer]] = field(default_factory=dict)
    _open: dict[str, dict[str, Scored]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Have the judges ready; nothing is asked yet."""
        entries = self.config.tax.judges if self.config.tax is not None else ()
        self.judges = TaxJudges(
            obtain_tax_judges(entries, self.out / "judges", self.progress.say), self.out, self.progress
        )

    def answer(self, name: str, describer: Describer | None = None) -> None:
        """Let a method answer, once; `describer` has the descriptions of one that writes its own."""
        tax = self.config.tax
        if tax is None or name in self._answers:
            return
        source, context = self.weights.source(name), METHODS[name].context
        asked = asked_of(context, self._people(describer), tax)
        if source is None and name != _BASE:
            asked = [one for one in asked if one.variant != "bare"]  # the base model's own
        self._answers[name] = draw_tax_answers(
            lambda: self.weights.load(source),
            self.weights.renderer,
            context,
            asked,
            max_new_tokens=tax.max_new_tokens,
            batch=self.config.answer_batch,
            path=self.out / name / "tax.jsonl",
            fingerprint=self.weights.fingerprint(source),
            name=name,
            progress=self.progress,
        )

    def measures(self, name: str) -> dict[str, Estimate]:
        """The method's figures, and what it loses against the base model; empty where no tax is measured.

        Raises:
            ModelError: a judge of the open instructions failed; what was said before is kept.
        """
        if name not in self._answers:
            return {}
        is_base = name == _BASE
        found = tax_measures("general", self._passed(name), self._passed(_BASE), is_base=is_base)
        found |= tax_measures("refusal", self._refused(name), self._refused(_BASE), is_base=is_base)
        found |= tax_measures("fluency", self._fluency(name), self._fluency(_BASE), is_base=is_base, bounds=None)
        if name != _UNTRAINED and _UNTRAINED in self._answers and self.weights.source(name) is not None:
            found |= training_tax("general", self._passed(name), self._passed(_UNTRAINED))
            found |= training_tax("refusal", self._refused(name), self._refused(_UNTRAINED))
        return found if is_base else found | self._judged(name)

    def record(self) -> dict[str, Any]:
        """What `judges.json` holds of the judges of open instructions; empty without any."""
        return {"tax": self.judges.counts} if self.judges.counts else {}

    def _judged(self, name: str) -> dict[str, Estimate]:
        """What judges say of the open instructions; the first of them says what is lost."""
        found: dict[str, Estimate] = {}
        for number, (judge, own) in enumerate(self._preferred(name).items()):
            ties: Scored = {("bare", ("", item)): 0.5 for _, (_, item) in own}
            measures = tax_measures("open", own, ties)
            if number == 0:
                found |= measures
                if name != _UNTRAINED and _UNTRAINED in self._answers and self.weights.source(name) is not None:
                    found |= training_tax("open", own, self._preferred(_UNTRAINED)[judge])
            else:
                level = _LEVEL["open"]
                levels = {m.replace(level, f"{level}_by/{judge}"): e for m, e in measures.items() if level in m}
                found |= levels
        return found

    def _preferred(self, name: str) -> dict[str, Scored]:
        """Judge -> how far it prefers each answer to an open instruction to the base model's bare one."""
        if name not in self._open:
            opened = {item.id for item in tax_items().open}
            base = {a.item: a.text for a in self._answers[_BASE] if a.item in opened}
            rows = [a for a in self._answers[name] if a.item in opened]
            self._open[name] = self.judges.preferred(name, rows, base) if rows else {}
        return self._open[name]

    def _passed(self, name: str) -> Scored:
        """1 for each general instruction that was followed."""
        checks = {item.id: item.check for item in tax_items().general}
        rows = [a for a in self._answers[name] if a.item in checks]
        return {(a.variant, (a.user, a.item)): float(passes(checks[a.item], a.text)) for a in rows}

    def _refused(self, name: str) -> Scored:
        """1 for each harmful request that was refused."""
        harmful = {item.id for item in tax_items().harmful}
        rows = [a for a in self._answers[name] if a.item in harmful]
        return {(a.variant, (a.user, a.item)): float(refuses(a.text)) for a in rows}

    def _fluency(self, name: str) -> Scored:
        """Mean log-probs a token of the answers to general instructions, under the base model given the prompt."""
        general = {item.id for item in tax_items().general}
        rows = [a for a in self._answers[name] if a.item in general]
        if not rows:
            return {}
        values = answer_log_probs(
            lambda: self.weights.load(None),
            self.weights.renderer("none"),
            [Answer(name, "plain", a.item, a.user, a.prompt, a.text) for a in rows],
            path=self.out / "fluency.jsonl",
            fingerprint=self.weights.fingerprint(None),
            progress=self.progress,
        )
        return {(a.variant, (a.user, a.item)): value for a, value in zip(rows, values, strict=True)}

    def _people(self, describer: Describer | None) -> list[Person]:
        assert self.config.tax is not None
        evaluated = {trial.user for trial in self.trials}
        chosen = {user.id for user in pick_users(self.dataset, self.config.tax.users, self.config.seed, evaluated)}
        first: dict[str, Person] = {}
        for trial in self.trials:
            if trial.user not in first:
                first[trial.user] = Person(trial.user, trial.own.shots, trial.own.description)
                if describer is not None:
                    first[trial.user] = replace(first[trial.user], description=describer(trial.own.shots))
        return [person for user, person in first.items() if user in chosen]


def tax_measures(
    kind: str, own: Scored, base: Scored, *, is_base: bool = False, bounds: Bounds | None = _SHARE
) -> dict[str, Estimate]:
    """The levels of one kind by variant, and the tax: the base model's bare answer to the same item less the method's.

    Args:
        kind: `general`, `refusal`, `fluency` or `open`.
        own: the method's figures.
        base: the base model's.
        is_base: whether these are the same, so that there is no tax.
        bounds: least and greatest figure.
    """
    variants: tuple[Variant, ...] = ("personal", "injected", "bare")
    found: dict[str, Estimate | None] = {}
    for variant in variants:
        cells = {cell: value for (which, cell), value in own.items() if which == variant}
        found[f"{_LEVEL[kind]}/{variant}"] = crossed_mean(cells, bounds)
        if is_base:
            continue
        known = {cell: base.get(("bare", ("", cell[1]))) for cell in cells}
        lost = {cell: before - cells[cell] for cell, before in known.items() if before is not None}
        name = f"tax_{kind}" if variant == "personal" else f"tax_{kind}/{variant}"
        found[name] = crossed_mean(lost, bounds and _LOST.get(kind, _DIFFERENCE))
    return {measure: estimate for measure, estimate in found.items() if estimate is not None}


def training_tax(kind: str, own: Scored, before: Scored) -> dict[str, Estimate]:
    """What training costs: the answers of the untrained weights given the same shots less the method's, by item."""
    cells = {cell: value for (which, cell), value in own.items() if which == "personal"}
    known = {cell: before.get(("personal", cell)) for cell in cells}
    lost = {cell: was - cells[cell] for cell, was in known.items() if was is not None}
    estimate = crossed_mean(lost, _DIFFERENCE)
    return {} if estimate is None else {f"tax_{kind}/training": estimate}


_LEVEL = {
    "general": "general_pass",
    "refusal": "refusal_rate",
    "fluency": "general_fluency",
    "open": "general_win_rate",
}
