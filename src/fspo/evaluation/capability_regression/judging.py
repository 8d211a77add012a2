"""Open instructions before judges who know no user: does a method answer worse than the base model does untold?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fspo.evaluation.capability_regression.answers import Scored, TaxAnswer
from fspo.evaluation.config import JudgeConfig
from fspo.evaluation.judges.judgement_store import Annotation, Comparer, Pair, annotate, silence
from fspo.judging.pairwise import ANSWER_TOKENS, PairwiseJudge
from fspo.judging.weighted import LETTER_TOKENS, WeightedJudge
from fspo.llm.installed import need_client
from fspo.llm.types import LanguageModel
from fspo.preferences.types import User
from fspo.progress import Progress, Silent

__all__ = ["NOBODY", "TaxJudges", "obtain_tax_judges", "tax_judge"]

NOBODY = User("nobody")
"""Whom the answers are judged for."""

_SCORES = {"win": 1.0, "tie": 0.5, "loss": 0.0}
_PROMPT = """\
Two responses to a request are to be compared.

Request: {question}

Response A:
{first}

Response B:
{second}

Which of the two serves better whoever asks this, whoever that is? Go by whether it does what is asked, is right and \
can be understood, not by which is longer. """
_AS_JSON = """\
Answer with JSON only: {{"preferred": "A"}} or {{"preferred": "B"}}, or {{"preferred": "unclear"}} if neither is \
better."""
_AS_LETTER = "Answer with one letter only, A or B."


@dataclass
class TaxJudges:
    """All judges of the open instructions, the first of them the one of `tax_open`.

    Attributes:
        judges: name -> judge.
        out: folder of the evaluation; each method's gains a file for each judge.
        progress: shown once a comparison.
        counts: judge -> method -> how many wins, ties, losses, contradictions and answers that were none.
        used_up: judge -> the limit of tokens that its reasoning used up, in words.
    """

    judges: Mapping[str, Comparer]
    out: Path
    progress: Progress = field(default_factory=Silent)
    counts: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    used_up: dict[str, str] = field(default_factory=dict)

    def preferred(self, method: str, answers: Sequence[TaxAnswer], base: Mapping[str, str]) -> dict[str, Scored]:
        """Judge -> how far it prefers each of a method's answers to the base model's bare one.

        1 or 0, 0.5 for a tie, or between where the judge weighs. Equal answers are a tie, and nobody is asked. What
        can't be read, or is refused, has no part in it.

        Args:
            method: whose answers they are.
            answers: to open instructions.
            base: item -> the base model's answer, told nothing of a user.

        Raises:
            ModelError: a judge failed; what was said before is kept.
        """
        return {name: self._by(name, method, answers, base) for name in self.judges}

    def _by(self, name: str, method: str, answers: Sequence[TaxAnswer], base: Mapping[str, str]) -> Scored:
        asked = [answer for answer in answers if answer.text != base[answer.item]]
        said = annotate(
            self.judges[name],
            [Pair(answer.item, NOBODY, answer.prompt, answer.text, base[answer.item]) for answer in asked],
            path=self.out / method / f"tax-judgements-{name}.jsonl",
            name=f"tax, {method}, {name}",
            progress=self.progress,
        )
        self.counts.setdefault(name, {})[method] = _counted(said, len(answers) - len(asked))
        if used_up := next((row.used_up for row in said if row.used_up), ""):
            self.used_up[name] = used_up
        found = {
            (answer.variant, (answer.user, answer.item)): 0.5 for answer in answers if answer.text == base[answer.item]
        }
        for answer, row in zip(asked, said, strict=True):
            if not row.reject:
                score = _SCORES[row.judged] if row.preference is None else row.preference
                found[answer.variant, (answer.user, answer.item)] = score
        return found

    def notes(self) -> list[str]:
        """A sentence on each judge who gave nothing on some comparisons, or never decided."""
        found = []
        for name, methods in self.counts.items():
            total = sum(map(Counter, methods.values()), Counter[str]())
            found += silence(
                f"The judge '{name}' of the tax",
                unreadable=total["unreadable"],
                refused=total["refused"],
                reasoning=total["reasoning"],
                used_up=self.used_up.get(name, ""),
                ties=total["tie"],
                decided=total["win"] + total["tie"] + total["loss"],
            )
        return found


def _counted(said: Iterable[Annotation], equal: int) -> dict[str, int]:
    """Equal answers are among the ties."""
    rows = list(said)
    outcomes = Counter(row.reject or row.judged for row in rows)
    contradicting = sum(not row.consistent and not row.reject for row in rows)
    names = ("win", "tie", "loss", "unreadable", "reasoning", "refused")
    return {name: outcomes[name] + (equal if name == "tie" else 0) for name in names} | {"inconsistent": contradicting}


def obtain_tax_judges(
    entries: Iterable[JudgeConfig], folder: Path, say: Callable[[str], None] | None = None
) -> dict[str, Comparer]:
    """Name -> judge; nothing is asked yet.

    Args:
        entries: as configured, each with an endpoint.
        folder: keeps what the endpoints have answered, one file a judge.
        say: shows what there is to say of them while they are asked.

    Raises:
        ConfigError: the package that asks endpoints is missing.
    """
    found: dict[str, Comparer] = {}
    for entry in entries:
        from fspo.llm.cache import RequestCache
        from fspo.llm.endpoint import Endpoint

        assert entry.endpoint is not None
        need_client()
        found[entry.name] = tax_judge(
            entry, Endpoint(entry.endpoint, RequestCache(folder / f"tax-{entry.name}.sqlite"), say=say)
        )
    return found


def tax_judge(entry: JudgeConfig, llm: LanguageModel) -> PairwiseJudge | WeightedJudge:
    """The judge of an entry by whoever answers."""
    usual = LETTER_TOKENS if entry.weighted else ANSWER_TOKENS
    limit, setting = entry.max_tokens or usual, f"max_tokens of the judge '{entry.name}' of the tax"
    text = entry.prompt if entry.prompt is not None else _PROMPT + (_AS_LETTER if entry.weighted else _AS_JSON)
    kind = WeightedJudge if entry.weighted else PairwiseJudge
    return kind(llm, _filled(text), max_tokens=limit, setting=setting)


def _filled(text: str) -> Callable[[User, str, str, str], str]:
    from fspo.synthesis.recipe.templates import Template

    template = Template(text, frozenset({"question", "first", "second"}), "the prompt of a judge of the tax")
    return lambda _user, question, first, second: template.fill(question=question, first=first, second=second)
