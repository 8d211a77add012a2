"""Prompt templates with {variables}; what is filled in is never read as a template itself."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from fspo.errors import DataError
from fspo.llm.quoting import quoted
from fspo.printing import nearest

__all__ = ["Template"]

_VARIABLE = re.compile(r"\{\{|\}\}|\{(\w+)\}")


@dataclass(frozen=True)
class Template:
    """A text with {variables}; doubled braces stand for braces.

    Attributes:
        text: the template.
        known: the variables that may occur.
        where: file and key, for errors.
        needed: those without which it says nothing.

    Raises:
        DataError: the text names a variable that is not known, or lacks one that is needed.
    """

    text: str
    known: frozenset[str]
    where: str
    needed: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Refuse unknown variables, and the want of needed ones."""
        for name in self.variables():
            if name not in self.known:
                close = nearest(name, self.known, cutoff=0.5)
                hint = f"did you mean '{{{close}}}'?" if close else f"known are {_list(self.known)}."
                raise DataError(f"{self.where}: the template names the unknown variable '{{{name}}}'; {hint}")
        missing = self.needed.difference(self.variables())
        if missing:
            raise DataError(f"{self.where}: the template lacks {_list(missing)}; add what is missing.")

    def variables(self) -> list[str]:
        """The variables that occur, in order."""
        return list(dict.fromkeys(found[1] for found in _VARIABLE.finditer(self.text) if found[1]))

    def fill(self, **values: object) -> str:
        """The text with each variable's value in its place."""

        def put(found: re.Match[str]) -> str:
            return str(values[found[1]]) if found[1] else found[0][0]

        return _VARIABLE.sub(put, self.text).strip()

    def ask(self, texts: Mapping[str, str], **own: object) -> str:
        """What a model is to read: the template with other people's texts quoted, after what the quotes mean.

        `texts` are not to be obeyed (`fspo.llm.quoting`); the other variables' values are put in as they are.
        """
        quotation = quoted({name: texts[name] for name in self.variables() if name in texts})
        filled = self.fill(**own, **quotation.texts)
        return f"{quotation.notice}\n\n{filled}" if quotation.texts else filled


def _list(names: Collection[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in sorted(names)) or "none"
