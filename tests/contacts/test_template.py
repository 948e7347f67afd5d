"""A text is rendered from the columns of a row, and from nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smsretry import ConfigurationError
from smsretry.contacts import Template

words = st.text(st.characters(codec="utf-8"), max_size=20)
names = st.text(st.characters(codec="utf-8", exclude_characters="{}"), min_size=1, max_size=9).filter(str.strip)


def test_each_gap_is_filled_with_its_column() -> None:
    template = Template.of("Hi {name}, table {no} at {time}. See you, {name}!")
    assert template.columns == ("name", "no", "time", "name")
    assert template.render(["Ann", "3", "8 pm", "Ann"]) == "Hi Ann, table 3 at 8 pm. See you, Ann!"


def test_a_column_may_be_named_in_any_words() -> None:
    assert Template.of("Hi {first name}, {Größe.2}").columns == ("first name", "Größe.2")


def test_doubled_braces_are_braces() -> None:
    template = Template.of("{{name}} is {name}: {{{name}}}")
    assert template.columns == ("name", "name")
    assert template.render(["Ann", "Ann"]) == "{name} is Ann: {Ann}"


@pytest.mark.parametrize("text", ["Hi {name", "Hi name}", "Hi {}", "Hi { }", "Hi {na{me}", "{", "}"])
def test_a_brace_without_a_partner_or_a_name_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"at character .* names no column"):
        Template.of(text)


@pytest.mark.parametrize("gap", ["name.__class__", "name!r", "name:>1000000000", "0", "name[0]"])
def test_nothing_but_a_name_is_understood(gap: str) -> None:
    assert Template.of(f"Hi {{{gap}}}").columns == (gap,)


@given(cell=words)
def test_what_a_cell_says_is_put_in_as_it_is(cell: str) -> None:
    assert Template.of("<{name}>").render([cell]) == f"<{cell}>"


@given(words)
def test_a_text_with_its_braces_doubled_comes_out_as_it_was(text: str) -> None:
    template = Template.of(text.replace("{", "{{").replace("}", "}}"))
    assert (template.columns, template.render([])) == ((), text)


@given(st.lists(st.tuples(words, names)), words)
def test_whatever_is_between_the_gaps_stays(pieces: list[tuple[str, str]], end: str) -> None:
    def quoted(text: str) -> str:
        return text.replace("{", "{{").replace("}", "}}")

    template = Template.of("".join(f"{quoted(text)}{{{name}}}" for text, name in pieces) + quoted(end))
    assert template.columns == tuple(name.strip() for _, name in pieces)
    values = [f"[{number}]" for number in range(len(pieces))]
    expected = "".join(f"{text}{value}" for (text, _), value in zip(pieces, values, strict=True)) + end
    assert template.render(values) == expected
