"""What may be handed to a provider, and what may not."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.utils import json as kombu_json
from tests.strategies import NOW, hostile_values, json_values, messages, receipts

from smsretry import InvalidMessage, Message, Receipt, SMSRetryError
from smsretry.core.message import LONGEST_ID, json_copied

TO = "+15005550006"
TEXT = "Your table is ready."
MESSAGE = Message(TO, TEXT, id="booking-1")


def refused(**fields: Any) -> str:
    """Return why a message with these fields is refused."""
    with pytest.raises(InvalidMessage) as caught:
        Message(**({"to": TO, "body": TEXT} | fields))
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, SMSRetryError)
    return str(caught.value)


# Whom and what


@pytest.mark.parametrize("to", ["+15005550006", "+4915112345678", "+12", "+123456789012345"])
def test_a_number_in_e164_is_taken(to: str) -> None:
    assert Message(to, TEXT).to == to


@pytest.mark.parametrize(
    "to",
    [
        *("", "+", "15005550006", "+05005550006", "+1234567890123456", "+1 500 555 0006", "+1500555000x"),
        *("+15005550006\n", " +15005550006", "++15005550006", "whatsapp:+15005550006", "+１５００５５５０００６"),
        *(None, 15005550006, b"+15005550006", ["+15005550006"]),
    ],
)
def test_anything_else_is_no_number(to: Any) -> None:
    assert refused(to=to).startswith("to must be a number in E.164")


def test_a_refusal_does_not_repeat_the_number() -> None:
    assert "got '***88'" in refused(to="4915112345688")
    for field in ("to", "sender_id", "send_before", "media_urls", "metadata"):
        assert "4915112" not in refused(**{field: "+49151123456880000000"})
    with pytest.raises(InvalidMessage) as caught:
        Message.from_dict(MESSAGE.to_dict() | {"send_before": "+4915112345688", "v": 1})
    assert "4915112" not in str(caught.value)


@pytest.mark.parametrize("body", ["x", "Grüße 👋", "two\nlines\tand a tab", "\u200b", "x" * 10_000])
def test_any_text_is_taken(body: str) -> None:
    assert Message(TO, body).body == body


@pytest.mark.parametrize("body", ["", None, b"bytes", 7, "half a pair \ud83d", "\udc4b", "nul \0"])
def test_a_text_that_cannot_be_written_is_refused(body: Any) -> None:
    assert refused(body=body).startswith("body")


def test_a_picture_needs_no_text() -> None:
    message = Message(TO, "", media_urls=["https://example.com/a.png"])  # type: ignore[arg-type]
    assert message.media_urls == ("https://example.com/a.png",)


@pytest.mark.parametrize(
    "urls",
    [
        *("https://example.com/a.png", {"https://example.com/a.png"}, None, 7),
        *(["ftp://example.com/a.png"], [""], [None], ["https://"], ["https://a b"], ["http://a\n"], ["https://\ud800"]),
    ],
)
def test_media_are_urls_that_the_provider_can_fetch(urls: Any) -> None:
    assert refused(media_urls=urls).startswith("media_urls must")


@pytest.mark.parametrize(
    "sender_id", ["+15005550001", "12345", "123", "12345678", "MG" + "0a" * 16, "My Shop", "A-1_b&+"]
)
def test_every_kind_of_sender_id_is_taken(sender_id: str) -> None:
    assert Message(TO, TEXT, sender_id=sender_id).sender_id == sender_id


@pytest.mark.parametrize("sender_id", ["", "12", "twelve chars", "MG" + "0g" * 16, "Shöp", "a\n", 12345, b"Shop"])
def test_what_is_no_sender_id_is_refused(sender_id: Any) -> None:
    assert refused(sender_id=sender_id).startswith("sender_id must be")


@pytest.mark.parametrize("field", ["id", "campaign"])
@pytest.mark.parametrize("value", ["", "x" * (LONGEST_ID + 1), "a\nb", "\0", "\ud800", 7, b"id"])
def test_a_name_is_printable_and_fits_an_indexed_column(field: str, value: Any) -> None:
    assert refused(**{field: value}).startswith(f"{field} must ")


def test_a_name_may_hold_any_printable_characters() -> None:
    message = Message(TO, TEXT, id="frühling 2026:4711", campaign="x" * LONGEST_ID)
    assert message.id == "frühling 2026:4711"


# When


def test_a_deadline_is_kept_in_utc() -> None:
    berlin = timezone(timedelta(hours=1))
    message = Message(TO, TEXT, send_before=datetime(2026, 11, 23, 13, 0, tzinfo=berlin))
    assert message.send_before == NOW
    assert message.send_before is not None
    assert message.send_before.tzinfo is UTC


@pytest.mark.parametrize(
    "deadline",
    [
        *("2026-11-23T12:00:00Z", 1_790_000_000, datetime(2026, 11, 23), datetime.max),  # noqa: DTZ001, DTZ901
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))),
    ],
)
def test_a_deadline_without_a_zone_is_refused(deadline: Any) -> None:
    assert refused(send_before=deadline).startswith("send_before")


# Metadata


@pytest.mark.parametrize(
    "metadata",
    [
        *(None, [], "x", {1: "a"}, {"a": object()}, {"a": {1, 2}}, {"a": b"x"}, {"a": NOW}),
        *({"a": float("nan")}, {"a": float("inf")}, {"a": "\ud800"}, {"a": 10**5000}, {"a": {("t",): 1}}),
    ],
)
def test_metadata_that_is_no_json_is_refused(metadata: Any) -> None:
    assert refused(metadata=metadata).startswith("metadata must be")


def test_metadata_that_holds_itself_is_refused() -> None:
    endless: dict[str, Any] = {}
    endless["again"] = endless
    assert refused(metadata=endless).startswith("metadata must be JSON")
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert refused(metadata={"deep": deep}).startswith("metadata must be JSON")


def test_nobody_changes_the_metadata_of_a_message_from_outside() -> None:
    mine: dict[str, Any] = {"tags": ["a"]}
    message = Message(TO, TEXT, metadata=mine)
    mine["tags"].append("b")
    message.to_dict()["metadata"]["tags"].append("c")
    assert message.metadata == {"tags": ["a"]}


def test_any_mapping_may_be_metadata() -> None:
    assert Message(TO, TEXT, metadata=MappingProxyType({"a": (1, 2)})).metadata == {"a": [1, 2]}


# A message is a value


@given(messages())
def test_copies_of_a_message_are_equal_and_look_alike(message: Message) -> None:
    copies = [
        copy.copy(message),
        copy.deepcopy(message),
        pickle.loads(pickle.dumps(message)),
        replace(message),
        Message.from_dict(message.to_dict()),
        Message.from_dict(json.loads(json.dumps(message.to_dict()))),
    ]
    assert all(one == message and hash(one) == hash(message) and repr(one) == repr(message) for one in copies)


def test_messages_differ_by_their_metadata_too() -> None:
    assert replace(MESSAGE, metadata={"a": 1}) != MESSAGE


def test_a_message_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        MESSAGE.body = "Another text."  # type: ignore[misc]


def test_a_message_keeps_the_id_it_has() -> None:
    assert MESSAGE.with_id("task-9") is MESSAGE
    assert Message(TO, TEXT).with_id("task-9").id == "task-9"


@given(messages())
def test_a_repr_tells_neither_number_nor_text(message: Message) -> None:
    shown = repr(message)
    assert f"'***{message.to[-2:]}'" in shown
    assert f"body=<{len(message.body)} characters>" in shown
    assert message.to not in shown


def test_a_repr_tells_whose_message_it_is_and_until_when() -> None:
    message = replace(MESSAGE, campaign="spring", send_before=NOW)
    assert repr(message) == (
        "Message(id='booking-1', to='***06', body=<20 characters>, campaign='spring', "
        "send_before=2026-11-23T12:00:00+00:00)"
    )


# A message as JSON


def test_what_a_message_has_no_value_for_is_left_out() -> None:
    assert MESSAGE.to_dict() == {"v": 1, "to": TO, "body": TEXT, "id": "booking-1"}


def test_a_message_with_everything_comes_back_whole() -> None:
    message = Message(
        TO,
        TEXT,
        id="1",
        campaign="spring",
        sender_id="12345",
        media_urls=("https://example.com/a.png",),
        send_before=NOW,
        metadata={"customer": 4711},
    )
    data = message.to_dict()
    assert data["send_before"] == "2026-11-23T12:00:00+00:00"
    assert Message.from_dict(json.loads(json.dumps(data))) == message


FIELDS = [
    "v",
    "to",
    "body",
    "id",
    "campaign",
    "sender_id",
    "media_urls",
    "send_before",
    "metadata",
    "colour",
    "+1500555",
]


@given(st.dictionaries(st.sampled_from(FIELDS), hostile_values))
def test_hostile_input_is_an_invalid_message_or_a_message(changes: dict[str, Any]) -> None:
    try:
        message = Message.from_dict(MESSAGE.to_dict() | changes)
    except InvalidMessage:
        return
    assert Message.from_dict(json.loads(json.dumps(message.to_dict()))) == message


@given(
    hostile_values
    | st.dictionaries(hostile_values.filter(lambda value: not isinstance(value, (list, dict))), st.none())
)
def test_what_is_no_message_is_an_invalid_message(data: Any) -> None:
    with pytest.raises(InvalidMessage):
        Message.from_dict(data)


@pytest.mark.parametrize("version", [0, 2, "1", 1.0, True, None, [], 10**400])
def test_a_message_of_another_version_is_refused(version: Any) -> None:
    with pytest.raises(InvalidMessage, match="version"):
        Message.from_dict(MESSAGE.to_dict() | {"v": version})


@pytest.mark.parametrize("name", ["to", "body"])
def test_a_message_needs_number_and_text(name: str) -> None:
    data = MESSAGE.to_dict()
    del data[name]
    with pytest.raises(InvalidMessage, match=f"needs the field '{name}'"):
        Message.from_dict(data)


def test_an_unknown_field_is_refused_by_its_name() -> None:
    with pytest.raises(InvalidMessage, match="no field 'colour'"):
        Message.from_dict(MESSAGE.to_dict() | {"colour": "red"})


@given(json_values)
def test_a_copy_of_json_is_equal_and_shares_nothing_that_could_be_changed(value: Any) -> None:
    copied = json_copied(value)
    assert copied == value
    assert {id(one) for one in changeable(copied)}.isdisjoint(id(one) for one in changeable(value))


def changeable(value: Any) -> list[Any]:
    """Return every object and array within ``value``."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return [] if inner is None else [value, *(found for one in inner for found in changeable(one))]


# Receipts

RECEIPT = Receipt("acme", "A1", NOW, 1, "queued")
RECEIPT_FIELDS = tuple(RECEIPT.to_dict())
FIRST_MOMENT = datetime.min.replace(tzinfo=timezone(timedelta(hours=9)))


@given(receipts)
def test_a_receipt_comes_back_whole_from_json_and_from_celery(receipt: Receipt) -> None:
    assert Receipt.from_dict(json.loads(json.dumps(receipt.to_dict()))) == receipt
    returned: Mapping[str, Any] = kombu_json.loads(kombu_json.dumps(receipt))
    assert Receipt.from_dict(returned) == receipt


@given(receipts, st.dictionaries(st.sampled_from([*RECEIPT_FIELDS, "colour"]), hostile_values))
def test_what_is_no_receipt_is_a_value_error_and_all_else_comes_back_whole(
    receipt: Receipt, data: dict[str, Any]
) -> None:
    try:
        read = Receipt.from_dict(receipt.to_dict() | data)
    except ValueError:
        return
    assert Receipt.from_dict(json.loads(json.dumps(read.to_dict()))) == read


@pytest.mark.parametrize("missing", ["provider", "provider_id", "accepted_at"])
def test_a_receipt_that_lacks_a_field_is_refused(missing: str) -> None:
    data = RECEIPT.to_dict()
    del data[missing]
    with pytest.raises(ValueError, match=f"(?s)lacks a field.*{missing}"):
        Receipt.from_dict(data)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("provider", None, "provider of a receipt must be a str, got NoneType"),
        ("provider_id", 7, "provider_id of a receipt must be a str, got int"),
        ("provider_id", None, "provider_id of a receipt must be a str, got NoneType"),
        ("provider_id", "", "provider_id of a receipt must not be empty"),
        ("raw_status", 1, "raw_status of a receipt must be a str, got int"),
        ("segments", "1", "segments of a receipt must be a whole number or None, got str"),
        ("segments", True, "segments of a receipt must be a whole number or None, got bool"),
        ("accepted_at", None, "accepted_at of a receipt must be an aware datetime, got NoneType"),
        ("accepted_at", NOW.replace(tzinfo=None), "accepted_at of a receipt must be an aware datetime, got 2026"),
        ("accepted_at", FIRST_MOMENT, "accepted_at of a receipt is no moment in UTC"),
    ],
)
def test_a_receipt_that_cannot_be_is_refused_by_its_field(field: str, value: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        replace(RECEIPT, **{field: value})


def test_the_time_of_a_receipt_is_kept_in_utc() -> None:
    assert replace(RECEIPT, accepted_at=NOW.astimezone(timezone(timedelta(hours=9)))).accepted_at.tzinfo is UTC


@pytest.mark.parametrize("data", [None, [], "receipt", 7])
def test_what_is_no_object_is_no_receipt(data: Any) -> None:
    with pytest.raises(ValueError, match="receipt"):
        Receipt.from_dict(data)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (7, r"id must be a str, got int\. Use str\(\.\.\.\)\."),
        ("", r"id must not be empty\. Leave it out, or give one\."),
        ("a\nb", r"id must be printable, got a control character\. Remove it\."),
        ("x" * 256, r"id must have 255 characters at most, got 256\. Shorten it\."),
    ],
)
def test_an_id_that_cannot_be_is_told_why(name: Any, says: str) -> None:
    with pytest.raises(InvalidMessage, match=says):
        Message("+14155550101", "Your table is ready.", id=name)


@pytest.mark.parametrize("metadata", [{"a": {1: 2}}, {"a": [{None: 1}]}, {"a": [{"b": ({True: 1},)}]}])
def test_keys_within_metadata_must_be_text_since_json_would_change_them(metadata: Any) -> None:
    with pytest.raises(InvalidMessage, match="metadata must be a mapping with str keys, all the way down"):
        Message("+14155550101", "Your table is ready.", metadata=metadata)
