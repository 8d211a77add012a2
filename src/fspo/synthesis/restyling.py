"""Forms that a small model can't be steered to, made from its text by fixed rules and marked in the provenance."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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

    `steps` are the rules applied, in order, such as `bullets` or `first_person:In my opinion,`; `sentences` counts
    those of the text that it keeps.
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

    `parts` are the whole sentences of the text, without exclamation marks, bullets and emoji. `style` has 1 (much of
    it) or -1 (little of it) for attributes of `RESTYLED`; the others stay as they are. `side` is the sentiment, 1 or
    -1, that the response must clearly have; 0 for any. The work of the question decides which emoji fit.
    """
    return _Restyling(style, side, work, styles, config, rng).restyled(list(parts))


@dataclass
class _Restyling:
    """One text on its way; see `restyle` for what decides its forms."""

    style: Mapping[str, int]
    side: int
    work: Question
    styles: StylesFile
    config: SynthesisConfig
    rng: random.Random
    steps: list[str] = field(default_factory=list)

    def restyled(self, parts: list[str]) -> Restyled | None:
        style, clear = self.style, self.config.restyling.clear_sentiment
        chosen = self._sized(self._personal(parts))
        if chosen is None:
            return None
        kept = len(chosen)
        if "formality" in style:
            chosen = self._formal(chosen, style["formality"])
        if style.get("first_person", 0) > 0:
            chosen = self._with_opener(chosen)
        if not chosen:
            return None
        if self.side and sentiment(" ".join(chosen)) * self.side < clear:
            return None
        if style.get("exclamation", 0) > 0:
            chosen = [part.rstrip(".?!") + ("!" if self.rng.random() < 0.85 else "!!") for part in chosen]
            self.steps.append("exclamation")
        if style.get("emoji", 0) > 0:
            chosen = self._with_emoji(chosen)
        if style.get("bullets", 0) > 0:
            self.steps.append("bullets")
            return Restyled("\n".join(f"- {part}" for part in chosen), tuple(self.steps), kept)
        return Restyled(" ".join(chosen), tuple(self.steps), kept)

    def _personal(self, parts: list[str]) -> list[str]:
        """For an impersonal response, only what says nothing of the writer, or can be made so."""
        if self.style.get("first_person", 0) >= 0:
            return parts
        bare = [_capital(_SAYS_I.sub("", part)) for part in parts]
        impersonal = [part for part in bare if not first_person(part)]
        if impersonal != parts:
            self.steps.append("first_person:removed")
        return impersonal

    def _sized(self, parts: list[str]) -> list[str] | None:
        wanted, lengths = self.style.get("length", 0), self.config.restyling
        if wanted < 0:
            return self._short(parts)
        chosen: list[str] = []
        for part in parts:
            if _count(chosen) + len(words(part)) <= lengths.max_words:
                chosen.append(part)
        least = max(self.config.min_words, lengths.long_words if wanted > 0 else 0)
        return chosen if chosen and _count(chosen) >= least else None

    def _short(self, parts: list[str]) -> list[str] | None:
        """One short sentence of the text, or the first clause of one, with the wanted sentiment."""
        lengths = self.config.restyling
        heads = [(part, (clauses(part) or [part])[0]) for part in parts]
        candidates = [(part, False) for part in parts]
        candidates += [(head + ".", True) for part, head in heads if head + "." != part]
        fitting = [
            (text, cut)
            for text, cut in candidates
            if self.config.min_words <= len(words(text)) <= lengths.short_words
            and (not self.side or sentiment(text) * self.side >= lengths.clear_sentiment)
        ]
        if not fitting:
            return None
        text, cut = self.rng.choice(fitting)
        self.steps.append("length:clause" if cut else "length:sentence")
        return [text]

    def _with_opener(self, parts: list[str]) -> list[str]:
        """An opener that speaks of the writer, before one that does not already; nothing where none fits."""
        if any(first_person(part) for part in parts) and self.rng.random() < 0.5:
            return parts
        if first_person(parts[0]):
            return parts
        fragment = parts[0].split(" ", 1)[0] in _FRAGMENTS
        openers = [o for o in self.styles.first_person if o.endswith(", ") or not fragment]
        if not openers:
            return []
        opener = self.rng.choice(openers)
        self.steps.append(f"first_person:{opener.strip()}")
        return [opener + _lower(parts[0], self.work), *parts[1:]]

    def _formal(self, parts: list[str], wanted: int) -> list[str]:
        pairs = self.styles.contractions.items()
        swaps = [(short, full) for full, short in pairs] if wanted > 0 else list(pairs)
        for old, new in swaps:
            parts = [re.sub(rf"\b{re.escape(old)}\b", new, part) for part in parts]
            parts = [re.sub(rf"\b{re.escape(_capital(old))}\b", _capital(new), part) for part in parts]
        opener = self.rng.choice(self.styles.formal if wanted > 0 else self.styles.informal)
        self.steps.append(f"formality:{opener.strip()}")
        return [opener + _lower(parts[0], self.work), *parts[1:]]

    def _with_emoji(self, parts: list[str]) -> list[str]:
        rng = self.rng
        direction = self.side or (1 if sentiment(" ".join(parts)) >= 0 else -1)
        fitting = self.styles.emoji["positive" if direction > 0 else "negative"]
        signs = rng.sample(fitting, rng.choice((1, 2, 2, 3)))
        if rng.random() < 0.4:
            signs[-1] = rng.choice(self.styles.emoji.get(self.work.kind) or fitting)
        self.steps.append("emoji:" + "".join(signs))
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
