"""What every method answers to the items of the tax: with a user's context, without any, and with harm in the shots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from fspo.evaluation.capability_regression.items import TaxItem, in_turn, tax_items
from fspo.evaluation.config import TaxConfig
from fspo.evaluation.scoring.eval_episodes import texts_of
from fspo.evaluation.scoring.weights import LoadableModel
from fspo.evaluation.statistics.intervals import Cell
from fspo.identity import digest
from fspo.modeling.rendering import Context
from fspo.preferences.types import Episode, Preference
from fspo.progress import Progress
from fspo.records import KeyedLog

__all__ = ["Scored", "TaxAnswer", "TaxRequest", "Variant", "build_requests", "draw_tax_answers", "with_harm"]

Variant = Literal["bare", "personal", "injected"]
"""The prompt alone; with the method's context about the user; the same with the harmful request in the shots too."""

_VARIANTS: tuple[Variant, ...] = ("bare", "personal", "injected")

Scored = Mapping[tuple[Variant, Cell], float]
"""One figure for each variant, user (empty if bare) and item."""


@dataclass(frozen=True)
class TaxRequest:
    """One item as it is put to a method."""

    variant: Variant
    item: str
    user: str
    prompt: str
    shots: tuple[Preference, ...] = ()
    description: str = ""


@dataclass(frozen=True)
class TaxAnswer:
    """What was answered."""

    variant: Variant
    item: str
    user: str
    prompt: str
    text: str


def build_requests(context: Context, people: Sequence[Episode], config: TaxConfig) -> list[TaxRequest]:
    """Everything that a method of this context is asked: bare prompts, then user by user, and open ones after these.

    `people` are one episode of each user, of whom the method sees the shots and the description.
    """
    items = tax_items()
    closed, opened = _Requests(), _Requests()
    for number, person in enumerate(people):
        general = in_turn(items.general, number, config.general)
        harmful = in_turn(items.harmful, number, config.refusals)
        closed.add([*general, *harmful], person)
        closed.personal += [
            _personal("injected", item, person, with_harm(person.shots, item.prompt)) for item in harmful
        ]
        opened.add(in_turn(items.open, number, config.open) if config.judges else [], person)
    told: dict[Context, tuple[Variant, ...]] = {"none": ("bare",), "description": ("bare", "personal")}
    return [one for part in (closed, opened) for one in part.all if one.variant in told.get(context, _VARIANTS)]


@dataclass
class _Requests:
    """Bare prompts by item, and those with a user's context."""

    bare: dict[str, TaxRequest] = field(default_factory=dict)
    personal: list[TaxRequest] = field(default_factory=list)

    def add(self, items: Sequence[TaxItem], person: Episode) -> None:
        self.bare |= {item.id: TaxRequest("bare", item.id, "", item.prompt) for item in items}
        self.personal += [_personal("personal", item, person, person.shots) for item in items]

    @property
    def all(self) -> list[TaxRequest]:
        return [*self.bare.values(), *self.personal]


def with_harm(shots: Sequence[Preference], request: str) -> tuple[Preference, ...]:
    """The shots with `request` as the prompt of every second one, the newest among them; responses and labels stay."""
    last = len(shots) - 1
    return tuple(
        replace(shot, prompt=request, turns=()) if (last - place) % 2 == 0 else shot for place, shot in enumerate(shots)
    )


def draw_tax_answers(
    model: LoadableModel,
    asked: Sequence[TaxRequest],
    *,
    max_new_tokens: int,
    batch: int,
    path: Path,
    name: str = "",
    progress: Progress | None = None,
) -> list[TaxAnswer]:
    """The most probable answer to everything asked, `batch` at once; what is whole in `path` is not repeated."""
    shown, bare = model.renderer.identity, model.renderer.with_context("none").identity
    wanted = {}
    for one in asked:
        how = [model.fingerprint, bare if one.variant == "bare" else shown, max_new_tokens]
        what = [one.variant, one.item, one.user, one.prompt, texts_of(one.shots), one.description]
        wanted[digest([*how, *what])] = one

    def answer(some: Sequence[TaxRequest]) -> list[TaxAnswer]:
        texts = _generate(model, some, max_new_tokens)
        return [
            TaxAnswer(one.variant, one.item, one.user, one.prompt, text) for one, text in zip(some, texts, strict=True)
        ]

    title = f"Answering for the tax, {name}"
    return KeyedLog(path, TaxAnswer).complete(wanted, answer, batch=batch, title=title, progress=progress)


def _personal(variant: Variant, item: TaxItem, person: Episode, shots: tuple[Preference, ...]) -> TaxRequest:
    return TaxRequest(variant, item.id, person.user, item.prompt, shots, person.description)


def _generate(model: LoadableModel, asked: Sequence[TaxRequest], max_new_tokens: int) -> list[str]:
    from fspo.modeling.answering import Prompt
    from fspo.modeling.generation import Sampling

    prompts = [Prompt(one.prompt, one.shots, one.description) for one in asked]  # bare ones have neither of the two
    sampling = Sampling(max_new_tokens, temperature=0.0)
    return [reply.text for reply in model.answer(prompts, sampling)]
