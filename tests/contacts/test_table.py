"""A CSV file is read row by row, and every row knows its line."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smsretry import ConfigurationError
from smsretry.contacts import Table

cells = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "contacts.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(folder: Path, content: str | bytes, **options: str) -> list[tuple[int, tuple[str, ...]]]:
    return [(row.line, row.cells) for row in Table(written(folder, content), **options).rows()]


@pytest.mark.parametrize("content", ["name,phone\nAnn,+1\n", "\ufeffname,phone\r\nAnn,+1", "name,phone\rAnn,+1\r"])
def test_a_file_is_read_with_or_without_a_bom_and_with_any_line_ends(tmp_path: Path, content: str) -> None:
    table = Table(written(tmp_path, content))
    assert table.columns == ("name", "phone")
    assert [(row.line, row.cells) for row in table.rows()] == [(2, ("Ann", "+1"))]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_recognised(tmp_path: Path, delimiter: str) -> None:
    content = f'name{delimiter}"last, first; or | both"{delimiter}phone\nAnn{delimiter}"a,b;c"{delimiter}+1\n'
    table = Table(written(tmp_path, content))
    assert table.delimiter == delimiter
    assert next(table.rows()).cells == ("Ann", "a,b;c", "+1")


def test_a_delimiter_of_ones_own_may_be_given(tmp_path: Path) -> None:
    assert read(tmp_path, "a:b,c\n1:2\n", delimiter=":") == [(2, ("1", "2"))]
    with pytest.raises(ConfigurationError, match="one character"):
        Table(written(tmp_path, "a\n"), delimiter="::")


def test_a_file_of_one_column_is_read(tmp_path: Path) -> None:
    assert read(tmp_path, "phone\n+1\n") == [(2, ("+1",))]


def test_lines_are_those_of_the_file_after_cells_of_several_lines_too(tmp_path: Path) -> None:
    content = 'name,note\nAnn,"one\ntwo\r\nthree"\n\n,\nBob,"say ""hi"""\nCid\n'
    assert read(tmp_path, content) == [
        (2, ("Ann", "one\ntwo\r\nthree")),
        (7, ("Bob", 'say "hi"')),
        (8, ("Cid",)),
    ]


def test_spaces_around_cells_are_left_out(tmp_path: Path) -> None:
    assert Table(written(tmp_path, " name , phone\n")).columns == ("name", "phone")
    assert read(tmp_path, "name,phone\n Ann ,\t+1 \n") == [(2, ("Ann", "+1"))]


@pytest.mark.parametrize("content", ['a,b\n1,2\n"3,4\n5,6\n', 'a,b\n1,2\n"3"x,4\n', 'a\nx\n"' + 200_000 * "y\n"])
def test_broken_quotes_are_told_with_their_line(tmp_path: Path, content: str) -> None:
    rows = Table(written(tmp_path, content)).rows()
    next(rows)
    with pytest.raises(ConfigurationError, match=r"from line 3 on.*quote"):
        next(rows)


@pytest.mark.parametrize("content", ["", "\n\n", "\ufeff"])
def test_a_file_without_a_header_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(ConfigurationError, match="empty"):
        Table(written(tmp_path, content))


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_a_header_in_another_encoding_is_refused(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        Table(written(tmp_path, "größe,phone\n1,+1\n".encode(encoding)))


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        Table(tmp_path / "none.csv")
    with pytest.raises(ConfigurationError, match="is no file"):
        Table(tmp_path)


def test_a_column_is_found_and_one_that_is_missing_is_told_with_those_that_are_there(tmp_path: Path) -> None:
    table = Table(written(tmp_path, "name,phone,note,note\n"))
    assert table.index_of("phone") == 1
    with pytest.raises(ConfigurationError, match=r"no column 'mobile'. It has: name, phone, note, note"):
        table.index_of("mobile")
    with pytest.raises(ConfigurationError, match="2 columns 'note'"):
        table.index_of("note")


def test_a_file_that_changes_while_it_is_read_is_read_no_further(tmp_path: Path) -> None:
    path = written(tmp_path, "phone\n+1\n+2\n")
    rows = Table(path).rows()
    next(rows)
    with path.open("a") as file:
        file.write("+3\n")
    with pytest.raises(ConfigurationError, match="was changed"):
        next(rows)


def test_another_file_in_its_place_is_not_read(tmp_path: Path) -> None:
    path = written(tmp_path, "phone\n+1\n")
    table = Table(path)
    (tmp_path / "other.csv").write_text("phone\n+2\n")
    (tmp_path / "other.csv").replace(path)
    with pytest.raises(ConfigurationError, match="was changed"):
        next(table.rows())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(cells, min_size=2, max_size=2)))
def test_whatever_was_written_as_csv_is_read_and_every_row_begins_on_its_line(
    tmp_path: Path, rows: list[list[str]]
) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow(["a", "b"])
    expected = []
    for row in rows:
        line = len(io.StringIO(buffer.getvalue(), newline=None).readlines()) + 1
        writer.writerow(row)
        if any(cell.strip() for cell in row):
            expected.append((line, tuple(cell.strip() for cell in row)))
    assert read(tmp_path, buffer.getvalue()) == expected


@pytest.mark.parametrize("first", ["sep=;\n", "\ufeffsep=;\r\n", '"sep=;"\r\n', "SEP=;\r"])
def test_the_line_that_names_the_delimiter_for_excel_is_read_as_that(tmp_path: Path, first: str) -> None:
    table = Table(written(tmp_path, f"{first}name,first;phone\nAnn;+1\n"))
    assert (table.delimiter, table.columns) == (";", ("name,first", "phone"))
    assert [(row.line, row.cells) for row in table.rows()] == [(3, ("Ann", "+1"))]


def test_a_delimiter_that_is_given_holds_under_such_a_line_too(tmp_path: Path) -> None:
    assert read(tmp_path, "sep=;\na,b\n1,2\n", delimiter=",") == [(3, ("1", "2"))]
    assert Table(written(tmp_path, "sep=;\n1;2\n")).columns == ("1", "2")
