"""Render a text from the columns of a row, and from nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from smsretry.errors import ConfigurationError

_TOKEN: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


@dataclass(frozen=True, slots=True)
class Template:
    """Hold a text with gaps: each of ``columns`` fills the one between two of ``literals``.

    ``{name}`` is the only thing that is understood: no attribute, index, conversion or format. ``{{`` and ``}}`` are
    braces. What stands in a cell is put in as it is, whatever braces it has.
    """

    literals: tuple[str, ...]
    columns: tuple[str, ...] = ()

    @classmethod
    def of(cls, text: str) -> Self:
        """Read ``text``; raise `ConfigurationError` where a brace has no partner, or a pair of them no name."""
        literals, columns, end = [""], [], 0
        for token in _TOKEN.finditer(text):
            literals[-1] += text[end : token.start()]
            end = token.end()
            if token[0] in {"{{", "}}"}:
                literals[-1] += token[0][0]
            else:
                columns.append(_name_in(token))
                literals.append("")
        literals[-1] += text[end:]
        return cls(tuple(literals), tuple(columns))

    def render(self, values: Sequence[str]) -> str:
        """Return the text with ``values``, one for each of ``columns``."""
        first, *rest = self.literals
        return first + "".join(value + literal for value, literal in zip(values, rest, strict=True))


def _name_in(token: re.Match[str]) -> str:
    name = (token[1] or "").strip()
    if not name:
        raise ConfigurationError(
            f"The template has {token[0]!r} at character {token.start() + 1}, which names no column. "
            "Write {name} for the column name, and {{ or }} for a brace."
        )
    return name
