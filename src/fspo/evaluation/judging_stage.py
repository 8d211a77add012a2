"""All judges of an evaluation on all answers: win rates plain, weighted, at equal lengths and matched; agreement."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import TypeVar

from fspo.evaluation.artifacts import Agreement, JudgeRecord, JudgesRecord
from fspo.evaluation.config import BASE, HEADLINE, EvaluationConfig
from fspo.evaluation.judges.answer_quality import Quality
from fspo.evaluation.judges.judgement_store import shortcomings
from fspo.evaluation.judges.length_control import Judged, LengthControlled, difficulties, length_controlled
from fspo.evaluation.judges.win_rates import Answer, AnswerKey, JudgedAnswer, folder_name, judge_answers
from fspo.evaluation.metrics.answer_metrics import judged_column, win_rates
from fspo.evaluation.metrics.records import counts
from fspo.evaluation.metrics.table import Column, Table
from fspo.evaluation.scoring.eval_episodes import Item
from fspo.evaluation.statistics.intervals import Estimate, clustered_mean
from fspo.judging.judge import Judge, can_judge
from fspo.judging.pairwise import PairwiseJudge
from fspo.preferences.markup import bare
from fspo.preferences.types import User
from fspo.progress import Progress, Silent

__all__ = ["JudgingStage", "agreement", "cohens_kappa", "matched_in_length"]

Answers = Mapping[AnswerKey, Sequence[Answer]]
JudgedAnswers = Mapping[AnswerKey, Sequence[JudgedAnswer]]
Key = TypeVar("Key", bound=Hashable)


@dataclass
class JudgingStage:
    """Every judge of one evaluation by name, the headline first, and what they judged."""

    config: EvaluationConfig
    users: Mapping[str, User]
    judges: Mapping[str, Judge]
    out: Path
    """Folder of the evaluation."""
    progress: Progress = field(default_factory=Silent)
    baseline: str = BASE
    """Whose plain answers all others are compared with."""
    judged: dict[str, dict[AnswerKey, list[JudgedAnswer]]] = field(default_factory=dict)
    matched: dict[AnswerKey, list[JudgedAnswer]] = field(default_factory=dict)
    """By the headline judge, of matched answers."""
    controlled: dict[str, dict[AnswerKey, LengthControlled]] = field(default_factory=dict)
    """By judge, the win rates at equal lengths."""

    @property
    def headline(self) -> dict[AnswerKey, list[JudgedAnswer]]:
        """What the headline judge judged; empty where there is none."""
        return self.judged.get(HEADLINE, {})

    @property
    def _base(self) -> AnswerKey:
        return self.baseline, "plain"

    def judge(self, answers: Answers, qualities: Mapping[AnswerKey, Mapping[str, Quality]]) -> None:
        """Let all judges judge all answers.

        Raises:
            ModelError: a judge failed; what was judged before is stored.
        """
        full = {drawn: rows for drawn, rows in answers.items() if "@" not in drawn[1]}
        for name, judge in self.judges.items():
            file = "judgements.jsonl" if name == HEADLINE else f"judgements-{name}.jsonl"
            asked = answers if name == HEADLINE else full  # fewer shots are for the headline's judge alone
            weighable = {drawn: self._weighable(judge, rows) for drawn, rows in asked.items()}
            by = "" if name == HEADLINE else f"by {name}"
            self.judged[name] = self._judge(judge, weighable, asked, qualities, file, by)
            judgements = [answer.judgement for rows in self.judged[name].values() for answer in rows]
            for sentence in shortcomings(f"The judge '{name}'", judgements):
                self.progress.say(sentence)
            self.controlled[name] = _controlled({d: rows for d, rows in self.judged[name].items() if d in full})
        if self.config.match and HEADLINE in self.judges:
            alike, base = self._alike(full)
            judge = self.judges[HEADLINE]
            self.matched = self._judge(judge, alike, base, qualities, "judgements-matched.jsonl", "matched")

    def table(self, key: AnswerKey, *, headline: bool) -> Table:
        """The win rates of one method and sampling; `headline` says whether they are the method's without a variant."""
        sampling = key[1]
        found: Table = {}
        for name, judged in self.judged.items():
            rows = judged.get(key, [])
            if name == HEADLINE:
                found |= win_rates(rows, sampling, headline=headline)
            else:
                found[f"win_rate_by/{name}/{sampling}"] = judged_column(rows, lambda row: row.score)
            if any(row.judgement.probability is not None for row in rows):  # only of a judge that weighs
                found[f"win_rate_weighted/{_place(name, sampling)}"] = judged_column(rows, lambda row: row.degree)
        found[f"win_rate_matched/{sampling}"] = judged_column(self.matched.get(key, []), lambda row: row.score)
        return {measure: column for measure, column in found.items() if column.of}

    def length_controlled(self, key: AnswerKey, *, headline: bool) -> dict[str, Estimate]:
        """The win rates of one method and sampling at equal lengths, by every judge."""
        found: dict[str, Estimate] = {}
        for name, controlled in self.controlled.items():
            if key in controlled and not controlled[key].empty:
                found[f"win_rate_length_controlled/{_place(name, key[1])}"] = controlled[key].win_rate
                if name == HEADLINE and headline:
                    found["win_rate_length_controlled"] = controlled[key].win_rate
        return found

    def record(self) -> JudgesRecord:
        """Of each judge how it judged, and how far every two of them agree."""
        return JudgesRecord(
            judges={name: self._record(name) for name in self.judged},
            agreement=tuple(_agreement(one, other, self.judged) for one, other in combinations(self.judged, 2)),
            matched={_label(drawn): counts(rows) for drawn, rows in self.matched.items()},
        )

    def _record(self, name: str) -> JudgeRecord:
        judge, judged = self.judges[name], self.judged[name]
        decided = (
            ((row.answer.user, _label(key) + row.answer.item), row.judgement)
            for key, rows in judged.items()
            for row in rows
            if not row.judgement.failure
        )
        consistency = Column({item: float(judgement.consistent) for item, judgement in decided}).estimate()
        return JudgeRecord(
            counts={_label(drawn): counts(rows) for drawn, rows in judged.items()},
            consistency=consistency,
            length_controlled={_label(drawn): row.to_json() for drawn, row in self.controlled[name].items()},
            replies=judge.replies if isinstance(judge, PairwiseJudge) else {},
        )

    def _judge(
        self,
        judge: Judge,
        answers: Answers,
        base: Answers,
        qualities: Mapping[AnswerKey, Mapping[str, Quality]],
        file: str,
        name: str,
    ) -> dict[AnswerKey, list[JudgedAnswer]]:
        against = {answer.item: answer for answer in base.get(self._base, ())}
        return {
            drawn: judge_answers(
                judge,
                self.users,
                rows,
                against,
                qualities[drawn],
                qualities[self._base],
                self.config.floors,
                path=self.out / folder_name(drawn[0]) / file,
                name=", ".join(filter(None, (" ".join(drawn), name))),
                progress=self.progress,
            )
            for drawn, rows in answers.items()
            if drawn[0] != self.baseline
        }

    def _weighable(self, judge: Judge, answers: Sequence[Answer]) -> Sequence[Answer]:
        """The answers of the users that the judge can judge for."""
        return [answer for answer in answers if can_judge(judge, self.users[answer.user], answer.prompt)]

    def _alike(self, answers: Answers) -> tuple[Answers, Answers]:
        """The answers that are matched, and all of them in the form that these were matched in."""
        everything: Answers = answers
        if "format" in self.config.match:
            everything = {d: [replace(one, text=bare(one.text)) for one in rows] for d, rows in answers.items()}
        if "length" not in self.config.match:
            return everything, everything
        base = {answer.item: answer for answer in everything.get(self._base, ())}
        band = self.config.match_band
        return {drawn: matched_in_length(rows, base, band) for drawn, rows in everything.items()}, everything


def matched_in_length(answers: Sequence[Answer], base: Mapping[str, Answer], band: float) -> list[Answer]:
    """Those of the answers whose length in characters is at most `band` times the base answer's, and the reverse."""
    lengths = ((answer, sorted((len(answer.text), len(base[answer.item].text)))) for answer in answers)
    return [answer for answer, (shorter, longer) in lengths if longer <= band * shorter]


def _controlled(judged_answers: JudgedAnswers) -> dict[AnswerKey, LengthControlled]:
    """The win rates at equal lengths; how easily the base model is beaten is seen from methods sampled alike."""
    found = {}
    for sampling in dict.fromkeys(sampling for _, sampling in judged_answers):
        alike = {drawn: rows for drawn, rows in judged_answers.items() if drawn[1] == sampling}
        hard = difficulties(
            {drawn[0]: {j.answer.key: j.degree for j in rows if j.degree is not None} for drawn, rows in alike.items()}
        )
        for drawn, rows in alike.items():
            own = hard[drawn[0]]
            judged = [
                Judged(j.answer.user, j.degree, len(j.answer.text), len(j.base.text), own.get(j.answer.key, 0.0))
                for j in rows
            ]
            if any(row.score is not None for row in judged):
                found[drawn] = length_controlled(judged)
    return found


def _place(judge: str, sampling: str) -> str:
    return sampling if judge == HEADLINE else f"{judge}/{sampling}"


def _agreement(one: str, other: str, judged: Mapping[str, JudgedAnswers]) -> Agreement:
    """Over the judges' own preferences, before the floors; failures are left out."""
    first, second = (
        {
            (_label(drawn), j.answer.key): j.judgement.preferred
            for drawn, rows in judged[name].items()
            for j in rows
            if not j.judgement.failure
        }
        for name in (one, other)
    )
    return Agreement(judges=(one, other), share=agreement(first, second), kappa=cohens_kappa(first, second))


def _label(drawn: AnswerKey) -> str:
    return f"{drawn[0]}, {drawn[1]}"


def cohens_kappa(first: Mapping[Key, str], second: Mapping[Key, str]) -> float | None:
    """Cohen's kappa (1960) on the shared keys: 1 where both always say the same, 0 as by chance.

    None where chance alone would always agree, because both say one and the same word throughout, or no key is shared.
    """
    from sklearn.metrics import cohen_kappa_score

    shared = [key for key in first if key in second]
    ours, theirs = [first[key] for key in shared], [second[key] for key in shared]
    return float(cohen_kappa_score(ours, theirs)) if len({*ours, *theirs}) > 1 else None


def agreement(first: Mapping[tuple[str, Item], str], second: Mapping[tuple[str, Item], str]) -> Estimate | None:
    """The share of shared comparisons on which both say the same, clustered by user; None without any.

    A comparison's key is what was judged, and its item.
    """
    shared = [key for key in first if key in second]
    if not shared:
        return None
    return clustered_mean([float(first[key] == second[key]) for key in shared], [item[0] for _, item in shared])
