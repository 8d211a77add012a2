"""What an evaluation leaves on disk: one type for each record, which the evaluation writes and the report reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from fspo.evaluation.config import BASE, Floors
from fspo.evaluation.statistics.intervals import Estimate
from fspo.judging.trait_readers import Reading
from fspo.records import Record, read_record

__all__ = [
    "AGAIN",
    "FORMAT",
    "GAMES_FILE",
    "Agreement",
    "CalibrationRecord",
    "Calibrations",
    "Details",
    "ErrorByChance",
    "Estimates",
    "ItemRecord",
    "JudgeIdentity",
    "JudgeRecord",
    "JudgesRecord",
    "PerUser",
    "ReliabilityBin",
    "Sample",
    "UserMean",
    "Varied",
    "estimates_of",
    "read_details",
]

AGAIN = "run `fspo eval` again."
"""How to fix a file of an evaluation that is damaged or of another version."""

FORMAT = 2
"""Of the folder of an evaluation, in `details.json`; counts up where an older one can't be read any more."""

GAMES_FILE = "games.jsonl"

Counts = dict[str, int]

Estimates = dict[str, dict[str, Estimate]]
"""`metrics.json`, `comparisons.json`: method -> measure -> estimate."""


class UserMean(Record):
    """The mean of one measure over one user's items."""

    value: float
    items: int


PerUser = dict[str, dict[str, dict[str, UserMean]]]
"""`per_user.json`: method -> measure -> user -> mean."""


class ReliabilityBin(Record):
    """The decisions of one method whose confidence lies between `low` and `high`."""

    low: float = 0.5
    high: float = 1.0
    confidence: float
    """Mean."""
    accuracy: float
    users: int
    items: int


class ErrorByChance(Record):
    """The calibration error that chance alone gives: its mean, and its 95th percentile."""

    mean: float
    high: float


class CalibrationRecord(Record):
    """How far one method's headline reward is calibrated, as it is and with a fitted scale."""

    reward: str = ""
    scale: float = 1.0
    bins: tuple[ReliabilityBin, ...] = ()
    fitted_bins: tuple[ReliabilityBin, ...] = ()
    error_by_chance: ErrorByChance | None = None
    fitted_error_by_chance: ErrorByChance | None = None


Calibrations = dict[str, CalibrationRecord]
"""`calibration.json`, by method."""


class Agreement(Record):
    """How far two judges agree: the share of comparisons, and Cohen's kappa."""

    judges: tuple[str, str]
    share: Estimate | None = None
    kappa: float | None = None


class JudgeRecord(Record):
    """How one judge judged; all mappings are by method and sampling, but `replies`."""

    counts: dict[str, Counts] = Field(default_factory=dict)
    consistency: Estimate | None = None
    """The share of comparisons on which both orders agree."""
    length_controlled: dict[str, dict[str, Any]] = Field(default_factory=dict)
    replies: Counts = Field(default_factory=dict)
    """What was odd about an endpoint's replies, and its failed requests -> how many."""


class JudgesRecord(Record):
    """`judges.json`."""

    judges: dict[str, JudgeRecord] = Field(default_factory=dict)
    agreement: tuple[Agreement, ...] = ()
    matched: dict[str, Counts] = Field(default_factory=dict)
    """The headline judge's counts on matched answers."""
    tax: dict[str, dict[str, Counts]] = Field(default_factory=dict)
    """Judge of open instructions -> method -> counts."""


class JudgeIdentity(Record):
    """Which judge it was."""

    kind: str
    digest: str


class Varied(Record):
    """On what the shots were varied."""

    users: int = 0
    pairs: int = 0
    other_topics_users: int = 0
    """Users with enough shots of other topics."""
    wrong_labels: Counts = Field(default_factory=dict)
    """Share in percent -> shots."""
    orders: int = 0


class Details(Record):
    """`details.json`: on what, by what and how was measured."""

    format: Literal[2]
    model: str | None = None
    compared: str | None = None
    """The method that the others are compared with."""
    baseline: str = BASE
    """Whose answers the others' are judged against."""
    given: bool = False
    """Whether the answers were given, so that no method was scored or trained."""
    missing: Counts = Field(default_factory=dict)
    """System -> prompts that it did not answer, of given answers."""
    anybody: bool = False
    """Whether the given answers are of no user, so that each prompt counts as a user of its own."""
    users: int = 0
    questions: int = 0
    pairs: int = 0
    seed: int = 0
    shots: int = 0
    episodes: int = 0
    queries: int = 0
    reduction: str = "sum"
    max_length: int | None = None
    headline_reward: str = ""
    headline_sampling: str = ""
    floors: Floors = Floors()
    without_donor: int = 0
    """Episodes for which no other user's shots could be swapped in."""
    judge_kind: Literal["none", "attributes", "declared", "other"] = "none"
    judge: JudgeIdentity | None = None
    readers: dict[str, Reading] = Field(default_factory=dict)
    """Trait -> how rightly it is read in answers, where these declare none."""
    unjudged_users: int = 0
    """Users left out of the headline's win rates, since they have a weight for a trait that is read too badly."""
    judges: dict[str, JudgeIdentity | None] = Field(default_factory=dict)
    """Those beside the headline's."""
    judgements: dict[str, Counts] = Field(default_factory=dict)
    """Method and sampling -> how the headline judge's comparisons came out."""
    rewards: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Method -> its rewards, the headline first."""
    reward_models: dict[str, Counts] = Field(default_factory=dict)
    samplings: dict[str, str] = Field(default_factory=dict)
    """Method -> the sampling of its win rate."""
    training_shots: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    robustness: Varied = Varied()
    dropped_shots: Counts = Field(default_factory=dict)
    descriptions: dict[str, dict[str, float]] = Field(default_factory=dict)
    """Method -> what its descriptions cost."""
    costs: dict[str, dict[str, float]] = Field(default_factory=dict)
    """Method -> seconds of its training, numbers that it learned, bytes that are stored of a user, and more."""
    observer_prior: str = ""
    """Which users the ideal observer expects."""
    untraced: tuple[str, ...] = ()
    """Methods whose training data are unknown."""
    too_long: int = 0
    """Preferences left out because some method can't read them."""
    layouts: tuple[str, ...] = ()
    """Sentences on policies that were trained with shots in another layout."""


class ItemRecord(Record):
    """A line of `items.jsonl`: one item, digests of what its values depend on, and the values of all methods."""

    item: str
    user: str
    prompt: str
    chosen: str
    rejected: str
    shots: str
    traits: str
    description: str
    donor: str
    """Digest of the shots and the description of the user who was swapped in; empty where there was none."""
    base_answer: str = ""
    """Digest of what methods' answers were judged against; empty where there was none."""
    values: dict[str, dict[str, float]]
    """Method -> measure -> value."""


class Sample(Record):
    """A line of `samples.jsonl`: the answers of all methods to one prompt of one user, by method and sampling."""

    user: str
    item: str
    prompt: str
    answers: dict[str, str] = Field(default_factory=dict)
    outcomes: dict[str, str] = Field(default_factory=dict)
    broken: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """The floors that answers fall below."""
    description: str = ""
    described: dict[str, str] = Field(default_factory=dict)
    """Method -> its own description of the user."""
    traits: dict[str, float] = Field(default_factory=dict)
    group: str = ""


def estimates_of(metrics: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Estimates:
    """The estimates in what `fspo.evaluation.evaluate.evaluate` returns."""
    return {method: {name: Estimate(**fields) for name, fields in row.items()} for method, row in metrics.items()}


def read_details(folder: Path) -> dict[str, Any]:
    """The fields of `details.json` that an evaluation wrote; empty where there is no such file.

    Raises:
        StorageError: the file is damaged, or of another version.
    """
    details = read_record(folder / "details.json", Details, AGAIN)
    return {} if details is None else details.model_dump(exclude_unset=True)
