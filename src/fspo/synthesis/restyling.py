"""Forms that a small model can't be steered to, made from its text by fixed rules and marked in the provenance."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fspo.judging.attributes import first_person, sentiment, words
from fspo.synthesis.cleaning import clauses
from fspo.synthesis.config import SynthesisConfig
from fspo.synthesis.domain import Question
from fspo.synthesis.domain_files import StylesFile

__all__ = ["RESTYLED", "Restyled", "restyle"]

RESTYLED = ("length", "bullets", "emoji", "exclamation", "first_person", "formality")
"""The attributes that restyling sets."""

_SAYS_I = re.compile(
    r"^(?:(?:and|but|so) )?(?:I (?:really |just |truly |still )?"
    r"(?:think|feel|believe|find|found|must say|would say)(?: that)?"
    r"|in my opinion,?|for me,?|to me,?|personally,?|my view is that) ",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Restyled:
    """A response and what was done to get it.

    Attributes:
        text: the response.
        steps: the rules applied, in order, such as `bullets` or `first_person:In my opinion,`.
        sentences: how many of the text's sentences it keeps.
    """

    text: str
    steps: tuple[str, ...]
    sentences: int


def restyle(
    parts: Sequence[str],
    style: Mapping[str, int],
    side: int,
    work: Question,
    styles: StylesFile,
    config: SynthesisConfig,
    rng: random.Random,
) -> Restyled | None:
    """Give a text the wanted style, or nothing where it does not have what that takes.

    Args:
        parts: the whole sentences of the text, without exclamation marks, bullets and emoji.
        style: attribute of `RESTYLED` -> 1 (much of it) or -1 (little of it); an attribute left out stays as it is.
        side: 1 or -1, the sentiment that the response must clearly have; 0 for any.
        work: the question, whose work decides which emoji fit.
        styles: what to draw from.
        config: lengths, and what counts as a clear sentiment.
        rng: decides between equal forms.
    """
    steps: list[str] = []
    usable = _personal(list(parts), style, steps)
    chosen = _sized(usable, style, side, config, rng, steps)
    if chosen is None:
        return None
    kept = len(chosen)
    if "formality" in style:
        chosen = _formal(chosen, style["formality"], work, styles, rng, steps)
    if style.get("first_person", 0) > 0:
        chosen = _with_opener(chosen, work, styles, rng, steps)
    if side and sentiment(" ".join(chosen)) * side < config.restyling.clear_sentiment:
        return None
    if style.get("exclamation", 0) > 0:
        chosen = [_exclaim(part, rng) for part in chosen]
        steps.append("exclamation")
    if style.get("emoji", 0) > 0:
        chosen = _with_emoji(chosen, side, work, styles, rng, steps)
    if style.get("bullets", 0) > 0:
        steps.append("bullets")
        return Restyled("\n".join(f"- {part}" for part in chosen), tuple(steps), kept)
    return Restyled(" ".join(chosen), tuple(steps), kept)


def _personal(parts: list[str], style: Mapping[str, int], steps: list[str]) -> list[str]:
    """For an impersonal response, only what says nothing of the writer, or can be made so."""
    if style.get("first_person", 0) >= 0:
        return parts
    bare = [_capital(_SAYS_I.sub("", part)) for part in parts]
    impersonal = [part for part in bare if not first_person(part)]
    if impersonal != parts:
        steps.append("first_person:removed")
    return impersonal


def _sized(
    parts: list[str], style: Mapping[str, int], side: int, config: SynthesisConfig, rng: random.Random, steps: list[str]
) -> list[str] | None:
    wanted = style.get("length", 0)
    if wanted < 0:
        return _short(parts, side, config, rng, steps)
    chosen: list[str] = []
    for part in parts:
        if _count(chosen) + len(words(part)) <= config.restyling.max_words:
            chosen.append(part)
    if not chosen or (wanted > 0 and _count(chosen) < config.restyling.long_words) or _count(chosen) < config.min_words:
        return None
    return chosen


def _short(
    parts: list[str], side: int, config: SynthesisConfig, rng: random.Random, steps: list[str]
) -> list[str] | None:
    """One short sentence of the text, or the first clause of one, with the wanted sentiment."""
    heads = [(part, (clauses(part) or [part])[0]) for part in parts]
    candidates = [(part, False) for part in parts] + [(head + ".", True) for part, head in heads if head + "." != part]
    fitting = [
        (text, cut)
        for text, cut in candidates
        if config.min_words <= len(words(text)) <= config.restyling.short_words
        and (not side or sentiment(text) * side >= config.restyling.clear_sentiment)
    ]
    if not fitting:
        return None
    text, cut = rng.choice(fitting)
    steps.append("length:clause" if cut else "length:sentence")
    return [text]


def _with_opener(
    parts: list[str], work: Question, styles: StylesFile, rng: random.Random, steps: list[str]
) -> list[str]:
    """An opener that speaks of the writer, before one that does not already."""
    if any(first_person(part) for part in parts) and rng.random() < 0.5:
        return parts
    if first_person(parts[0]):
        return parts
    fragment = parts[0].split(" ", 1)[0] in _FRAGMENTS
    opener = rng.choice([o for o in styles.first_person if o.endswith(", ") or not fragment])
    steps.append(f"first_person:{opener.strip()}")
    return [opener + _lower(parts[0], work), *parts[1:]]


def _formal(
    parts: list[str], wanted: int, work: Question, styles: StylesFile, rng: random.Random, steps: list[str]
) -> list[str]:
    pairs = styles.contractions.items()
    swaps = [(short, full) for full, short in pairs] if wanted > 0 else list(pairs)
    for old, new in swaps:
        parts = [re.sub(rf"\b{re.escape(old)}\b", new, part) for part in parts]
        parts = [re.sub(rf"\b{re.escape(_capital(old))}\b", _capital(new), part) for part in parts]
    opener = rng.choice(styles.formal if wanted > 0 else styles.informal)
    steps.append(f"formality:{opener.strip()}")
    return [opener + _lower(parts[0], work), *parts[1:]]


def _exclaim(part: str, rng: random.Random) -> str:
    return part.rstrip(".?!") + ("!" if rng.random() < 0.85 else "!!")


def _with_emoji(
    parts: list[str], side: int, work: Question, styles: StylesFile, rng: random.Random, steps: list[str]
) -> list[str]:
    direction = side or (1 if sentiment(" ".join(parts)) >= 0 else -1)
    fitting = styles.emoji["positive" if direction > 0 else "negative"]
    count = rng.choice((1, 2, 2, 3))
    signs = rng.sample(fitting, count)
    if rng.random() < 0.4:
        signs[-1] = rng.choice(styles.emoji.get(work.kind, fitting))
    steps.append("emoji:" + "".join(signs))
    places = sorted(rng.choice(range(len(parts))) if rng.random() < 0.4 else len(parts) - 1 for _ in signs)
    styled = list(parts)
    for place, sign in zip(places, signs, strict=True):
        styled[place] += f" {sign}"
    return styled


def _lower(sentence: str, work: Question) -> str:
    """A sentence to go on after an opener: common words lose their capital, names and the title keep it."""
    first = re.split(r"[ ']", sentence, maxsplit=1)[0]
    if first not in _COMMON or (work.title and sentence.startswith(work.title)):
        return sentence
    return sentence[0].lower() + sentence[1:]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _count(parts: Sequence[str]) -> int:
    return sum(len(words(part)) for part in parts)


_COMMON = frozenset(
    re.findall(
        r"\w+",
        "The A An This That These Those It Its There What Few Everyone Nobody Each Every Some Many Most All Pure "
        "Avoid They He She You We Your Their His Her If When While With In On At From By As But And So Not No Although "
        "Because Even Despite Overall Truly Definitely Such One Here Only Just Don Doesn Isn",
    )
)
"""What loses its capital inside a sentence."""
_FRAGMENTS = frozenset(("A", "An", "What", "Pure", "Avoid", "Such", "No", "Not"))
"""What begins a sentence that has no verb of its own, or is a command: only an opener with a comma goes before it."""
