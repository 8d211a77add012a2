"""Judgements on pairs of answers: requested once, saved line by line, and found again by everything they depend on.

The key of a judgement stands for the judge, the user as the judge knows them, the prompt and both answers. A judge that
can be asked for many at once is; where it fails in between, the judgements before stay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, get_args, runtime_checkable

from fspo.errors import ConfigError, ModelError
from fspo.evaluation.artifacts import JudgeIdentity
from fspo.identity import digest
from fspo.judging.by_topic import TopicJudge
from fspo.judging.judge import Judge
from fspo.judging.pairwise import readable
from fspo.judging.verdicts import Comparison, Failure, Judgement, Preferred, Verdict
from fspo.printing import option
from fspo.progress import Progress, Silent
from fspo.records import KeyedLog

__all__ = ["BatchJudge", "check_identity", "counts", "judge_identity", "judged", "shortcomings"]

_FEW = 8
"""Comparisons from which it is worth a word that all of them were ties."""


@runtime_checkable
class BatchJudge(Judge, Protocol):
    """A judge that takes many pairs at once, each in both orders (`fspo.judging.pairwise.PairwiseJudge`)."""

    def judge(self, comparisons: Iterable[Comparison]) -> Iterator[Judgement]:
        """Judge many pairs, in order."""


def judged(
    judge: Judge,
    pairs: Sequence[tuple[str, Comparison]],
    *,
    path: Path,
    name: str = "",
    progress: Progress | None = None,
) -> list[Judgement]:
    """The judgement on each pair of an item's id and a comparison, in order; equal pairs are judged once.

    `path` gains one line for each new judgement. One that an endpoint failed on, or that used up its limit of tokens by
    reasoning, is not written: the next call asks again.

    Raises:
        ConfigError: the judge has no identity; see `check_identity`.
        DataError: none of the first hundred answers can be read. Fewer are stored and counted.
        ModelError: the judge failed; what it judged before stays.
        StorageError: the file is damaged or can't be written.
    """
    passing = {"failed", "reasoning"}
    log = KeyedLog(path, Judgement, lasting=lambda found: not any(one.failure in passing for one in found.orders))
    keys = [_key(judge, comparison) for _, comparison in pairs]
    wanted = dict(zip(keys, pairs, strict=True))
    known = [log[key] for key in wanted if key in log]
    missing = {key: pair for key, pair in wanted.items() if key not in log}
    judgements = _asked(judge, [comparison for _, comparison in missing.values()])
    if all(judgement.failure == "unreadable" for judgement in known):
        judgements = readable(judgements, _remedy(), before=len(known), whole=False)
    title = f"Judging answers, {name}" if name else "Judging answers"
    with (progress or Silent()).task(title, total=len(wanted), done=len(known)) as task:
        for (key, (item, _)), judgement in zip(missing.items(), judgements, strict=True):
            log.put(key, judgement, item=item)
            task.advance(1)
    return [log[key] for key in keys]


def _remedy() -> str:
    """What to do about a judge that can't be read."""
    again = option("on-existing", "overwrite", python="an evaluation into another folder")
    return (
        "It has to name one of the two: change its prompt, use another model, or leave it out; what was measured is "
        f"kept. Once it is repaired, {again} asks again what could not be read."
    )


def counts(judgements: Sequence[Judgement]) -> dict[str, int]:
    """How comparisons came out, for the first answer; failures by their kind."""
    preferred = Counter(judgement.preferred for judgement in judgements if not judgement.failure)
    failures = Counter(judgement.failure for judgement in judgements)
    return {
        "items": len(judgements),
        "wins": preferred["first"],
        "ties": preferred["tie"],
        "losses": preferred["second"],
        "inconsistent": sum(not judgement.consistent and not judgement.failure for judgement in judgements),
        **{failure: failures[failure] for failure in get_args(Failure)},
        "without_log_probs": sum(judgement.without_log_probs > 0 for judgement in judgements),
    }


def shortcomings(judge: str, judgements: Sequence[Judgement]) -> list[str]:
    """Sentences on a judge that failed on some comparisons, or found nothing but ties."""
    count, total, found = counts(judgements), len(judgements), []
    if count["unreadable"] or count["refused"]:
        found.append(
            f"{judge} named neither answer in {count['unreadable']} of {total} comparisons and refused "
            f"{count['refused']}; they are left out of its figures."
        )
    if count["reasoning"]:
        limit = next((text for judgement in judgements if (text := judgement.detail("reasoning"))), "its token limit")
        found.append(
            f"{judge} gave only reasoning in {count['reasoning']} of {total} comparisons, which are left out of its "
            f"figures: reasoning used up {limit}. Raise it, or switch reasoning off (endpoint.extra_body)."
        )
    if count["failed"]:
        found.append(
            f"{judge} did not judge {count['failed']} of {total} comparisons, because requests to its endpoint failed. "
            "They are left out of its figures, and the next call asks again."
        )
    decided = count["wins"] + count["ties"] + count["losses"]
    if decided >= _FEW and count["ties"] == decided:
        found.append(f"{judge} preferred neither answer in any of {decided} comparisons.")
    return found


def judge_identity(judge: Judge, prompts: Iterable[str]) -> JudgeIdentity:
    """Distinguishes judges whose verdicts on responses to these prompts can differ."""
    known = sorted({prompt: _identity(judge, prompt) for prompt in prompts}.items())
    return JudgeIdentity(kind=type(judge).__qualname__, digest=digest(known))


def check_identity(judge: Judge) -> None:
    """Check that the judgements of a judge can be found again: of a judge written in Python only it can say when.

    Raises:
        ConfigError: the judge has no identity.
    """
    if not getattr(judge, "identity", ""):
        raise ConfigError(
            f"The judge {_kind(judge)} does not say what distinguishes it from other judges, so its judgements "
            "could be mistaken for theirs; give it an attribute `identity`, a text that changes if its verdicts may "
            "change (settings, version)."
        )


def _asked(judge: Judge, comparisons: Sequence[Comparison]) -> Iterator[Judgement]:
    if isinstance(judge, BatchJudge):
        return judge.judge(iter(comparisons))
    return (Judgement((_verdict(judge, one), _verdict(judge, one.swapped))) for one in comparisons)


def _verdict(judge: Judge, shown: Comparison) -> Verdict:
    preferred = judge.compare(shown.user, shown.prompt, shown.first, shown.second)
    if preferred not in get_args(Preferred):
        raise ModelError(
            f"The judge {type(judge).__qualname__} answered {preferred!r}; its compare must return 'first', 'second' "
            "or 'tie'."
        )
    return Verdict(preferred)


def _key(judge: Judge, comparison: Comparison) -> str:
    user = comparison.user
    person = [user.id, user.description, sorted(user.traits.items())]
    texts = [comparison.prompt, comparison.first, comparison.second]
    return digest([_identity(judge, comparison.prompt), person, *texts])


def _identity(judge: Judge, prompt: str) -> str:
    """Distinguishes judges whose verdicts on responses to this prompt can differ."""
    check_identity(judge)
    own = judge.identity_on(prompt) if isinstance(judge, TopicJudge) else getattr(judge, "identity", "")
    return f"{_kind(judge)}/{own}"


def _kind(judge: Judge) -> str:
    return f"{type(judge).__module__}.{type(judge).__qualname__}"
