"""Numbers are read as people write them, and what cannot be told for sure is refused."""

from __future__ import annotations

import subprocess
import sys

import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smsretry import ConfigurationError, Message
from smsretry.contacts import Numbers, UnreadableNumber


@pytest.mark.parametrize(
    "text",
    [
        "(415) 555-0101",
        "415.555.0101",
        "1-415-555-0101",
        "+1 415 555 0101",
        " 4155550101 ",
        "＋１ ４１５ ５５５ ０１０１",
    ],
)
def test_a_number_is_read_in_whatever_form(text: str) -> None:
    assert Numbers("US").read(text) == "+14155550101"


def test_a_number_abroad_is_read_as_it_is_dialled_from_the_region() -> None:
    assert Numbers("US").read("011 49 151 23456789") == "+4915123456789"


@pytest.mark.parametrize(
    ("region", "text", "number"),
    [
        ("DE", "0151 23456789", "+4915123456789"),
        ("GB", "07400 123456", "+447400123456"),
        ("IT", "06 1234 5678", "+390612345678"),
    ],
)
def test_a_number_without_a_country_is_one_of_the_region(region: str, text: str, number: str) -> None:
    assert Numbers(region).read(text) == number


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("415555O101", "letters"),
        ("1-800-FLOWERS", "letters"),
        ("415 555 0101 ext. 5", "letters"),
        ("tel:+14155550101", "letters"),
        ("1.4155550101E+10", "letters"),
        ("+1 415 555 0101 #5", "extension"),
        ("555-0101", "digits"),
        ("+1 415 555 01012", "digits"),
        ("4155550101 / 4155550102", "no phone number"),
        ("+999 123456789", "country's code"),
        ("-", "no phone number"),
        ("5", "no phone number"),
        ("²³⁴", "no phone number"),
        ("\udce9", "no phone number"),
    ],
)
def test_what_is_no_number_for_sure_is_refused_without_repeating_it(text: str, why: str) -> None:
    with pytest.raises(UnreadableNumber, match=why) as raised:
        Numbers("US").read(text)
    assert text not in str(raised.value)


def test_a_number_without_a_country_needs_a_region() -> None:
    assert Numbers().read("+1 415 555 0101") == "+14155550101"
    with pytest.raises(UnreadableNumber, match="no region is given"):
        Numbers().read("415 555 0101")


@pytest.mark.parametrize("region", ["us", "USA", "", "XX"])
def test_a_region_that_is_none_is_refused(region: str) -> None:
    with pytest.raises(ConfigurationError, match="two capital letters"):
        Numbers(region)


@given(st.text(st.sampled_from("0123456789+-() ./#x,;\u00a0\u0663O"), max_size=24) | st.text(max_size=12))
def test_every_cell_becomes_a_number_that_a_message_takes_or_is_refused(text: str) -> None:
    try:
        number = Numbers("US").read(text)
    except UnreadableNumber:
        return
    assert Message(number, "Hello").to == number
    assert Numbers().read(number) == number, "what was read once is read again as the same"


@given(
    st.sampled_from(["US", "DE", "GB", "BR", "IN", "NG", "IT", "AR", "MX"]),
    st.sampled_from([phonenumbers.PhoneNumberFormat.INTERNATIONAL, phonenumbers.PhoneNumberFormat.NATIONAL]),
)
def test_a_countrys_mobile_number_is_read_back_from_its_own_ways_of_writing(region: str, form: int) -> None:
    mobile = phonenumbers.example_number_for_type(region, phonenumbers.PhoneNumberType.MOBILE)
    assert mobile is not None
    e164 = phonenumbers.format_number(mobile, phonenumbers.PhoneNumberFormat.E164)
    assert Numbers(region).read(phonenumbers.format_number(mobile, form)) == e164


def without_the_extra(program: str) -> str:
    blocked = f"import sys; sys.modules['phonenumbers'] = None\nfrom smsretry.contacts import Numbers\n{program}"
    return subprocess.run([sys.executable, "-c", blocked], capture_output=True, text=True, check=True).stdout


def test_without_the_extra_e164_is_taken_and_the_rest_says_what_to_install() -> None:
    program = (
        "print(Numbers().read('+14155550101'))\n"
        "for make in (lambda: Numbers().read('(415) 555-0101'), lambda: Numbers('US')):\n"
        "    try: make()\n"
        "    except Exception as error: print(error)\n"
    )
    number, *refusals = without_the_extra(program).splitlines()
    assert number == "+14155550101"
    assert len(refusals) == 2
    assert all("pip install 'smsretry[phone]'" in refusal for refusal in refusals)
