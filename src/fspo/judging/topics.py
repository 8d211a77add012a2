"""What a text is about, as an attribute: how many words of a topic's list it holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

from fspo.errors import ConfigError
from fspo.judging.attributes import Attribute, attributes_named, words

__all__ = ["MOST", "TOPIC", "named", "topic"]

TOPIC = "topic."
"""What the names of topics begin with among attributes."""

MOST = 3.0
"""Words of a topic from which more make no difference."""


def topic(name: str, vocabulary: Iterable[str]) -> Attribute:
    """An attribute `topic.NAME`: words of `vocabulary` in the text, at most 3; plural forms in -s count too.

    Raises:
        ConfigError: the vocabulary is empty, or no text can hold any of it.
    """
    known = frozenset(word.lower() for word in vocabulary)
    if not known:
        raise ConfigError(f"The topic '{name}' has no words; list some.")
    if not any(_is_one_word(word) for word in known):
        raise ConfigError(
            f"The topic '{name}' lists no single words ('{min(known)}' is not one), so it is the same in all texts; "
            "list single words."
        )

    forms = known | {f"{word}s" for word in known}

    def measure(text: str) -> float:
        return min(MOST, float(sum(map(forms.__contains__, _lower_words(text)))))

    about = name.replace("_", " ")
    return Attribute(
        TOPIC + name, measure, (f"about {about}",), (f"on anything but {about}",), f"words on {about}, at most 3"
    )


@lru_cache(maxsize=8192)
def _lower_words(text: str) -> tuple[str, ...]:
    """The words of a text in lower case; all topics of a domain are measured in the same texts."""
    return tuple(word.lower() for word in words(text))


def _is_one_word(entry: str) -> bool:
    """Whether a word of some text can equal this entry of a vocabulary, or be its plural."""
    return any(words(form) == [form] for form in (entry, f"{entry}s"))


def named(names: Iterable[str], vocabularies: Mapping[str, Iterable[str]]) -> dict[str, Attribute]:
    """Look attributes up, topics among them.

    Raises:
        ConfigError: an attribute or a topic is unknown, or an attribute is named twice.
    """
    names = list(names)
    plain = attributes_named(name for name in names if not name.startswith(TOPIC))
    found = {attribute.name: attribute for attribute in plain}
    for name in names:
        if name.startswith(TOPIC):
            short = name.removeprefix(TOPIC)
            if short not in vocabularies:
                raise ConfigError(
                    f"There is no topic '{short}' for the attribute '{name}'; "
                    f"known are {', '.join(vocabularies) or 'none'}."
                )
            found[name] = topic(short, vocabularies[short])
    return {name: found[name] for name in names}
