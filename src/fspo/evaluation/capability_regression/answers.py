"""What every method answers to the items of the tax: with a user's context, without any, and with harm in the shots."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fspo.evaluation.capability_regression.items import TaxItem, in_turn, tax_items
from fspo.evaluation.config import TaxConfig
from fspo.evaluation.statistics.two_way_clustering import Cell
from fspo.identity import digest
from fspo.modeling.rendering import Context
from fspo.preferences.types import Preference
from fspo.progress import Progress
from fspo.records import KeyedLog

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from fspo.modeling.rendering import EpisodeRenderer

__all__ = ["Person", "Scored", "TaxAnswer", "TaxRequest", "Variant", "build_requests", "draw_tax_answers", "with_harm"]

Variant = Literal["bare", "personal", "injected"]
"""The prompt alone; with what the method is told of the user; the same with the harmful request in the shots too."""

Scored = Mapping[tuple[Variant, Cell], float]
"""One figure for each variant, user (empty if bare) and item."""


@dataclass(frozen=True)
class Person:
    """What a method may be told of a user."""

    user: str
    shots: tuple[Preference, ...]
    description: str = ""


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


def build_requests(context: Context, people: Sequence[Person], config: TaxConfig) -> list[TaxRequest]:
    """Everything that a method of this context is asked: bare prompts, then user by user, and open ones after these."""
    items = tax_items()
    bare: dict[str, TaxRequest] = {}
    personal: list[TaxRequest] = []
    for number, person in enumerate(people):
        general = in_turn(items.general, number, config.general)
        harmful = in_turn(items.harmful, number, config.refusals)
        bare |= _bare(*general, *harmful)
        if context != "none":
            personal += [_personal("personal", item, person, person.shots) for item in (*general, *harmful)]
        if context in ("shots", "both"):
            personal += [_personal("injected", item, person, with_harm(person.shots, item.prompt)) for item in harmful]
    return [*bare.values(), *personal, *_open(context, people, config)]


def with_harm(shots: Sequence[Preference], request: str) -> tuple[Preference, ...]:
    """The shots with `request` as the prompt of every second one, the newest among them; responses and labels stay."""
    last = len(shots) - 1
    return tuple(replace(shot, prompt=request) if (last - place) % 2 == 0 else shot for place, shot in enumerate(shots))


def draw_tax_answers(
    model: Callable[[], PreTrainedModel],
    renderer: Callable[[Context], EpisodeRenderer],
    context: Context,
    asked: Sequence[TaxRequest],
    *,
    max_new_tokens: int,
    batch: int,
    path: Path,
    fingerprint: str,
    name: str = "",
    progress: Progress | None = None,
) -> list[TaxAnswer]:
    """The most probable answer to everything asked; batches that are whole in `path` are taken from there.

    Args:
        model: gives the weights; not called where everything is known.
        renderer: context -> what shows it; bare prompts are shown in the context `none`.
        context: what the method is told of users.
        asked: what to answer.
        max_new_tokens: most tokens of an answer.
        batch: answers drawn at once.
        path: gains one line an answer.
        fingerprint: identifies the weights.
        name: the method's, for the progress bar.
        progress: shown once a batch.
    """
    log = KeyedLog(path, TaxAnswer)
    keys = [_key(fingerprint, renderer, context, max_new_tokens, one) for one in asked]

    def answer(some: Sequence[TaxRequest]) -> list[TaxAnswer]:
        texts = _generate(model(), renderer(context), some, max_new_tokens)
        return [
            TaxAnswer(one.variant, one.item, one.user, one.prompt, text) for one, text in zip(some, texts, strict=True)
        ]

    title = f"Answering for the tax, {name}"
    log.complete(dict(zip(keys, asked, strict=True)), answer, batch=batch, title=title, progress=progress)
    return [log[key] for key in keys]


def _open(context: Context, people: Sequence[Person], config: TaxConfig) -> list[TaxRequest]:
    """The open instructions, where somebody judges the answers."""
    bare: dict[str, TaxRequest] = {}
    personal: list[TaxRequest] = []
    for number, person in enumerate(people if config.judges else ()):
        items = in_turn(tax_items().open, number, config.open)
        bare |= _bare(*items)
        if context != "none":
            personal += [_personal("personal", item, person, person.shots) for item in items]
    return [*bare.values(), *personal]


def _bare(*items: TaxItem) -> dict[str, TaxRequest]:
    return {item.id: TaxRequest("bare", item.id, "", item.prompt) for item in items}


def _personal(variant: Variant, item: TaxItem, person: Person, shots: tuple[Preference, ...]) -> TaxRequest:
    return TaxRequest(variant, item.id, person.user, item.prompt, shots, person.description)


def _generate(
    model: PreTrainedModel, renderer: EpisodeRenderer, asked: Sequence[TaxRequest], max_new_tokens: int
) -> list[str]:
    from fspo.modeling.answering import Prompt, answer
    from fspo.modeling.generation import Sampling

    prompts = [Prompt(one.prompt, one.shots, one.description) for one in asked]  # bare ones have neither of the two
    replies = answer(model, renderer, prompts, Sampling(max_new_tokens, temperature=0.0), batch_size=len(prompts))
    return [reply.text for reply in replies]


def _key(
    fingerprint: str,
    renderer: Callable[[Context], EpisodeRenderer],
    context: Context,
    max_new_tokens: int,
    asked: TaxRequest,
) -> str:
    """A digest of everything that decides the answer."""
    shown = [[shot.prompt, shot.chosen, shot.rejected] for shot in asked.shots]
    how = [fingerprint, renderer("none" if asked.variant == "bare" else context).identity, max_new_tokens]
    return digest([*how, asked.variant, asked.item, asked.user, asked.prompt, shown, asked.description])
