"""Judges of open instructions, who know no user: does a method answer worse than the bare base model?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from fspo.evaluation.capability_regression.answers import Scored, TaxAnswer
from fspo.evaluation.config import JudgeConfig
from fspo.evaluation.judges.judgement_store import counts, judged, shortcomings
from fspo.evaluation.judges.judges import impersonal_judge
from fspo.judging.judge import Judge
from fspo.judging.pairwise import PairwiseJudge
from fspo.judging.verdicts import SCORES, Comparison, Judgement
from fspo.llm.types import LanguageModel
from fspo.preferences.types import User
from fspo.progress import Progress, Silent

__all__ = ["NOBODY", "TaxJudges", "tax_judge"]

NOBODY = User("nobody")
"""Whom the answers are judged for."""


@dataclass
class TaxJudges:
    """All judges of the open instructions by name; `tax_open` is by the first of them."""

    judges: Mapping[str, Judge]
    out: Path
    """Folder of the evaluation; each method's folder gains a file for each judge."""
    progress: Progress = field(default_factory=Silent)
    judgements: dict[str, dict[str, list[Judgement]]] = field(default_factory=dict)
    """Judge -> method -> the judgement on each of its answers, equal ones included."""

    def preferred(self, method: str, answers: Sequence[TaxAnswer], base: Mapping[str, str]) -> dict[str, Scored]:
        """Judge -> how far it prefers each of a method's answers to `base`, the base model's bare one to the same item.

        1 or 0, 0.5 for a tie, or between where the judge weighs. Equal answers are a tie without a judge. Comparisons
        that the judge failed on are left out.

        Raises:
            ModelError: a judge failed; what it judged before is stored.
        """
        pairs = [(a.item, Comparison(NOBODY, a.prompt, a.text, base[a.item])) for a in answers]
        different = [(item, pair) for item, pair in pairs if pair.first != pair.second]
        found: dict[str, Scored] = {}
        for name, judge in self.judges.items():
            path, title = self.out / method / f"tax-judgements-{name}.jsonl", f"tax, {method}, {name}"
            asked = iter(judged(judge, different, path=path, name=title, progress=self.progress))
            rows = [Judgement.agreed("tie") if pair.first == pair.second else next(asked) for _, pair in pairs]
            self.judgements.setdefault(name, {})[method] = rows
            found[name] = {
                (a.variant, (a.user, a.item)): SCORES[row.preferred] if row.probability is None else row.probability
                for a, row in zip(answers, rows, strict=True)
                if not row.failure
            }
        return found

    def record(self) -> dict[str, dict[str, dict[str, int]]]:
        """Judge -> method -> how the comparisons came out; equal answers are among the ties."""
        return {
            name: {method: counts(rows) for method, rows in methods.items()}
            for name, methods in self.judgements.items()
        }

    def notes(self) -> list[str]:
        """Sentences on judges that failed on some comparisons, or never decided."""
        return [
            note
            for name, methods in self.judgements.items()
            for note in shortcomings(f"The judge '{name}' of the tax", [*chain.from_iterable(methods.values())])
        ]


def tax_judge(entry: JudgeConfig, llm: LanguageModel) -> PairwiseJudge:
    """The judge of an entry by a language model."""
    return impersonal_judge(entry, llm, place=" of the tax")
