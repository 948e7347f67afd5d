"""Read a CSV file row by row, each with its line in the file."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

from smsretry.errors import ConfigurationError

DELIMITERS: Final = (",", ";", "\t", "|")
"""Those that are recognised; any other single character may be given."""
_SAMPLE_SIZE: Final = 65_536
_FOR_EXCEL: Final = re.compile(r'"?sep=(.)"?(?=[\r\n])', re.IGNORECASE)
"""The line before the header by which Excel is told the delimiter."""


@dataclass(frozen=True, slots=True)
class Row:
    """Hold the cells of one row, without the spaces around them, and the line on which it begins (the first is 1)."""

    line: int
    cells: tuple[str, ...]


class Table:
    """Hold where a CSV file is and what its header says; rows are read from the file each time they are asked for.

    The file is UTF-8, with or without a BOM, and its first line names the columns; before it may stand the line
    ``sep=;`` that Excel knows. The delimiter is that one, else the one of `DELIMITERS` that gives the header the most
    columns, unless it is given. Cells may be quoted and then hold delimiters, quotes (doubled) and line breaks. Empty
    lines, and rows of empty cells, are passed over. What is not UTF-8 is kept as lone surrogates, for the caller to
    refuse.

    Raises `ConfigurationError` for a file that cannot be read, has no header, or is not UTF-8 in its header.
    """

    def __init__(self, path: str | os.PathLike[str], *, delimiter: str | None = None) -> None:
        self.path = Path(path)
        if delimiter is not None and len(delimiter) != 1:
            raise ConfigurationError(
                f"delimiter must be one character, got {delimiter!r}. Leave it out to recognise it."
            )
        if self.path.exists() and not self.path.is_file():
            raise ConfigurationError(f"{self.path} is no file, and it is read more than once. Save it as a file.")
        with self._opened() as file:
            self._state = _state_of(file)
            sample = file.read(_SAMPLE_SIZE)
        named = _FOR_EXCEL.match(sample)
        self._lines_before = 0 if named is None else 1
        found = _delimiter_in(sample) if named is None else named[1]
        self.delimiter = found if delimiter is None else delimiter
        with self._opened() as file:
            header = next(self._read(file), None)
        if header is None:
            raise ConfigurationError(f"{self.path} is empty. Its first line must name the columns.")
        if not is_utf8("".join(header.cells)):
            raise ConfigurationError(f"{self.path} is not UTF-8. Save it as CSV in UTF-8.")
        self.columns = header.cells

    def index_of(self, column: str) -> int:
        """Return where ``column`` stands in a row; raise `ConfigurationError` where it is missing or stands twice."""
        count = self.columns.count(column)
        if count == 1:
            return self.columns.index(column)
        there = ", ".join(name for name in self.columns if name)
        if count:
            raise ConfigurationError(f"{self.path} has {count} columns {column!r}. Give each column a name of its own.")
        raise ConfigurationError(f"{self.path} has no column {column!r}. It has: {there}.")

    def rows(self) -> Iterator[Row]:
        """Yield every row under the header, and hold one at a time.

        Raise `ConfigurationError` where quoting is broken, so that nobody can say where the next row begins, and where
        the file is not any more what it was.
        """
        with self._opened() as file:
            rows = self._read(file)
            next(rows, None)
            for row in rows:
                if _state_of(file) != self._state:
                    raise ConfigurationError(f"{self.path} was changed while it was read. Run it again.")
                yield row

    @contextmanager
    def _opened(self) -> Iterator[TextIO]:
        try:
            file = self.path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")
        except OSError as error:
            raise ConfigurationError(f"{self.path} cannot be read: {error.strerror}.") from None
        with file:
            yield file

    def _read(self, file: TextIO) -> Iterator[Row]:
        for _ in range(self._lines_before):
            file.readline()
        reader, line = csv.reader(file, delimiter=self.delimiter, strict=True), 1 + self._lines_before
        try:
            for cells in reader:
                row = Row(line, tuple(cell.strip() for cell in cells))
                line = reader.line_num + 1 + self._lines_before
                if any(row.cells):
                    yield row
        except csv.Error as error:
            raise ConfigurationError(
                f"{self.path} cannot be read from line {line} on: {error}. Is a quote missing, or one too many?"
            ) from None


def is_utf8(text: str) -> bool:
    """Say whether ``text`` was UTF-8 in the file."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _delimiter_in(sample: str) -> str:
    """Return the delimiter that makes the most columns of the first row of ``sample``."""
    lines = sample.lstrip().splitlines(keepends=True)
    return max(DELIMITERS, key=lambda delimiter: len(next(csv.reader(lines, delimiter=delimiter), [])))


def _state_of(file: TextIO) -> tuple[int, ...]:
    state = os.fstat(file.fileno())
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns
