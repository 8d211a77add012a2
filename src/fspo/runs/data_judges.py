"""The judge that comes with data: the one that labelled them, or one fitted to them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fspo.errors import DataError
from fspo.judging.attributes import ATTRIBUTES
from fspo.judging.by_topic import OWN, load_judge
from fspo.judging.declared import DeclaredJudge
from fspo.judging.judge import AttributeJudge, Judge
from fspo.preferences.splits import Splits
from fspo.preferences.types import User
from fspo.synthesis.judges import with_readers
from fspo.synthesis.storage import RESPONSES, load_responses

__all__ = ["judge_of_data"]


def judge_of_data(
    path: Path | None, texts: Iterable[str], users: Iterable[User], data: Path | None
) -> tuple[Judge | None, str]:
    """The judge of these users' tastes, or why there is none.

    Args:
        path: `judge.json`, if there may be one. Without it a judge of measured attributes is fitted to `texts`.
        texts: what the scales of measured attributes are taken from.
        users: those to judge for.
        data: folder of the data, whose responses the readers of declared traits are fitted on.

    Raises:
        DataError: the judge is damaged.
        StorageError: a file can't be read.
    """
    users = list(users)
    names = list(dict.fromkeys(name.partition(OWN)[0] for user in users for name in user.traits))
    if not all(user.traits for user in users):
        return None, "some users have no traits" if any(user.traits for user in users) else "no user has traits"
    if path is not None and path.exists():
        judge = load_judge(path)
        if not judge.knows(names):
            return None, f"{path} lacks an attribute that they have a weight for"
        return (_with_readers(data, judge) if isinstance(judge, DeclaredJudge) else judge), ""
    on_topic = [name for user in users for name in user.traits if OWN in name]
    unknown = [name for name in names if name not in ATTRIBUTES]
    if unknown:
        return None, f"'{unknown[0]}' is no attribute that can be measured"
    if on_topic:
        lacking = path or "a judge.json"
        return (
            None,
            f"their weights depend on topics, as '{on_topic[0]}' does, and {lacking} is missing, which knows those",
        )
    try:
        return AttributeJudge.fit(dict.fromkeys(texts), names), ""
    except DataError as error:
        return None, str(error).rstrip(".")


def _with_readers(data: Path | None, judge: DeclaredJudge) -> DeclaredJudge:
    """The judge with readers of answers, which data of earlier versions lack; the same that `synth` makes today."""
    if judge.answers is not None or data is None or not (data / RESPONSES).exists():
        return judge
    train = Splits.load(data / "splits.json").questions["train"]
    return with_readers(judge, load_responses(data).items, train)
