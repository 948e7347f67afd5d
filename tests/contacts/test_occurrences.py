"""Texts are numbered per recipient, in little memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from smsretry.contacts.occurrences import HashTable, Occurrences, place_of

keys = st.integers(1, 2**64 - 1) | st.integers(1, 40).map(lambda n: n << 8)  # the latter meet in one place


@given(st.lists(st.tuples(keys, keys)))
def test_a_hash_table_keeps_what_a_dict_keeps(pairs: list[tuple[int, int]]) -> None:
    table, kept = HashTable(), dict[int, int]()
    for key, value in pairs:
        assert table.put(key, value) == kept.get(key)
        kept.setdefault(key, value)


def test_a_hash_table_keeps_all_when_it_grows() -> None:
    table = HashTable()
    assert {table.put(key * key, key) for key in range(1, 2_000)} == {None}
    assert all(table.put(key * key, 1) == key for key in range(1, 2_000))


@given(st.lists(st.tuples(st.sampled_from(["+1", "+2"]), st.sampled_from("abc"))))
def test_each_text_of_a_number_gets_the_next_place_once(rows: list[tuple[str, str]]) -> None:
    occurrences, texts = Occurrences(), dict[str, list[str]]()
    for number, text in rows:
        said = texts.setdefault(number, [])
        if text in said:
            assert occurrences.number_of(number, text) == 0
        else:
            said.append(text)
            assert occurrences.number_of(number, text) == len(said)
    several = {place_of(number, "")[0] for number, said in texts.items() if len(said) > 1}
    assert occurrences.with_several == several


def test_a_place_that_is_settled_holds_whatever_the_order() -> None:
    settled = {place_of("+1", "b"): 1, place_of("+1", "a"): 2}
    occurrences = Occurrences(settled)
    assert [occurrences.number_of("+1", text) for text in "abab"] == [2, 1, 0, 0]


def test_a_number_has_the_same_place_in_every_process() -> None:
    assert place_of("+14155550101", "Hello")[0] == 0x3AEC5BBBA8314DEC
