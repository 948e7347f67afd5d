"""The commands about what comes after acceptance: reports that never came, and who must not be texted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.store.clock import pass_time

from smsretry import Accepted, Dispatcher, Message
from smsretry.cli.commands import smsretry
from smsretry.core.delivery import DeliveryRetries
from smsretry.senders.twilio import TwilioSender
from smsretry.store import SQLStore
from smsretry.testing import TwilioSimulator

TO, OTHER = "+14155550123", "+14155550199"
FROM = "+15005550006"
NO_ACCOUNT = {name: None for name in os.environ if name.startswith("TWILIO_")}
A_QUARTER_OF_AN_HOUR_S = 960  # and a minute, since a clock may be set back meanwhile


@pytest.fixture
def twilio() -> Iterator[TwilioSimulator]:
    with TwilioSimulator() as running:
        yield running


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLStore]:
    retries = DeliveryRetries(codes={"30003"})
    with SQLStore(f"sqlite:///{tmp_path / 'sms.db'}", delivery_retries=retries) as opened:
        opened.create_tables()
        yield opened


def account(twilio: TwilioSimulator) -> dict[str, str]:
    own = {"TWILIO_ACCOUNT_SID": twilio.account_sid, "TWILIO_AUTH_TOKEN": twilio.auth_token}
    return own | {"TWILIO_BASE_URL": twilio.url}


def said(store: SQLStore, *words: str, code: int = 0, given: str | None = None, **env: str) -> str:
    """Run a command on ``store``, and return what it says on one line."""
    done: Result = CliRunner().invoke(
        smsretry, [*words, "--store", store.name], input=given, env={**NO_ACCOUNT, "COLUMNS": "160", **env}
    )
    assert done.exit_code == code, done.output
    return " ".join(done.output.split())


def sent(store: SQLStore, twilio: TwilioSimulator, status: str, error: int | None = None) -> None:
    """Send a text that comes to ``status``, and of which no report comes."""
    twilio.script_fate(status, error)
    sender = TwilioSender(twilio.account_sid, twilio.auth_token, from_number=FROM, base_url=twilio.url)
    message = Message(TO, "Your table is ready.", id="spring:1", campaign="spring")
    assert isinstance(Dispatcher(sender, journal=store).attempt(message), Accepted)
    sender.close()
    assert twilio.drain()
    pass_time(store, A_QUARTER_OF_AN_HOUR_S)


def test_what_no_report_told_is_asked_and_shown(store, twilio):
    sent(store, twilio, "delivered")
    assert "It is accepted" in said(store, "show", "spring:1")
    assert "Nothing was reported of it yet." in said(store, "show", "spring:1")
    told = said(store, "reconcile", **account(twilio))
    assert told == "1 asked about, 1 of them have their last word, 0 could not be asked about."
    shown = said(store, "show", "spring:1")
    assert "It was reported as delivered, at " in shown
    assert "│ reported │ delivered │" in shown
    nothing = {"asked": 0, "final": 0, "failed": 0, "refused": None}
    assert json.loads(said(store, "reconcile", "--json", **account(twilio))) == nothing


def test_a_text_that_did_not_arrive_says_why(store, twilio):
    sent(store, twilio, "undelivered", 30005)
    said(store, "reconcile", **account(twilio))
    shown = said(store, "show", "spring:1")
    assert "It was reported as undelivered (invalid_number 30005), at " in shown
    assert "│ undelivered invalid_number 30005 │" in shown
    assert TO not in shown


def test_who_opted_out_as_twilio_says_is_put_on_the_list(store, twilio):
    sent(store, twilio, "undelivered", 21610)
    said(store, "reconcile", **account(twilio))
    assert store.suppressed(TO, FROM) is not None


def test_the_figures_of_a_campaign_are_shown(store, twilio):
    sent(store, twilio, "undelivered", 30005)
    said(store, "reconcile", **account(twilio))
    shown = said(store, "show", "--campaign", "spring")
    assert "│ accepted │ 1 │ │ undelivered │ 1 │ │ failed │ 0 │" in shown
    figures = json.loads(said(store, "show", "--campaign", "spring", "--json"))
    assert (figures["planned"], figures["sent"], figures["undelivered"], figures["awaiting"]) == (1, 1, 1, 0)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--campaign", "sprung"], 1, "There is no campaign 'sprung'"),
        (["spring:1", "--campaign", "spring"], 2, "Name a message's id, or a --campaign."),
        ([], 2, "Name a message's id, or a --campaign."),
    ],
)
def test_what_cannot_be_shown_is_told(store, arguments, code, words):
    assert words in said(store, "show", *arguments, code=code)


def test_a_text_is_sent_anew_only_where_the_command_is_told_so(store, twilio):
    sent(store, twilio, "undelivered", 30003)
    said(store, "reconcile", "--retry-code", "30003", "--retry-code", "30001", **account(twilio))
    assert "It is pending: due at " in said(store, "show", "spring:1")
    assert "Retries after a delivery failure: 1." in said(store, "show", "spring:1")


def test_a_text_that_is_not_to_be_sent_anew_is_not_and_that_is_told(store, twilio):
    sent(store, twilio, "undelivered", 30003)
    told = said(store, "reconcile", **account(twilio))
    assert "1 asked about, 1 of them have their last word" in told
    assert "1 ended with 30003 and is not sent anew. If your application does that, name it: --retry-code 30003" in told
    assert "It was reported as undelivered (unreachable 30003)" in said(store, "show", "spring:1")


@pytest.mark.parametrize(("error", "codes"), [(30003, ("30003",)), (30005, ()), (None, ())])
def test_nothing_is_told_of_codes_that_are_named_or_after_which_no_retry_helps(store, twilio, error, codes):
    sent(store, twilio, "undelivered" if error else "delivered", error)
    options = [word for code in codes for word in ("--retry-code", code)]
    assert "sent anew" not in said(store, "reconcile", *options, **account(twilio))


def test_a_retry_that_waits_after_a_report_is_shown_in_its_row(store, twilio):
    sent(store, twilio, "undelivered", 30003)
    said(store, "reconcile", "--retry-code", "30003", **account(twilio))
    assert "│ undelivered unreachable 30003 │ in 600 s │" in said(store, "show", "spring:1")
    (row,) = [row for row in json.loads(said(store, "show", "spring:1", "--json")) if row["outcome"] == "reported"]
    assert row["delay_s"] == 600


def test_a_text_whose_last_word_never_came_says_so(store, twilio):
    sent(store, twilio, "sent")
    pass_time(store, 80 * 3_600)
    assert said(store, "reconcile", **account(twilio)).startswith("1 asked about, 0 of them")
    pass_time(store, 3_600)
    assert said(store, "reconcile", **account(twilio)).startswith("0 asked about")
    assert "The provider's last word never came." in said(store, "show", "spring:1")


def test_a_code_after_which_no_retry_helps_is_refused(store, twilio):
    told = said(store, "reconcile", "--retry-code", "30005", code=1, **account(twilio))
    assert "30005" in told


def test_an_account_that_is_not_configured_is_told_before_anybody_is_asked(store, twilio):
    sent(store, twilio, "delivered")
    assert "TWILIO_ACCOUNT_SID is missing" in said(store, "reconcile", code=1)
    assert twilio.gets == 0


def test_an_account_that_twilio_refuses_is_told_and_its_texts_are_asked_about_soon(store, twilio):
    sent(store, twilio, "delivered")
    wrong = account(twilio) | {"TWILIO_AUTH_TOKEN": "0" * 32}
    told = said(store, "reconcile", code=1, **wrong)
    assert "1 asked about, 0 of them have their last word, 1 could not be asked about." in told
    assert "Twilio refused the account (auth 20003), so nothing more was asked. Mend it, and run this again." in told
    assert json.loads(said(store, "reconcile", "--json", code=1, **wrong).split("Error:")[0])["refused"] == "auth 20003"
    assert said(store, "reconcile", **account(twilio)).startswith("1 asked about, 1 of them")


def test_reconcile_goes_on_until_it_is_interrupted(store, twilio):
    sent(store, twilio, "delivered")
    words = ("reconcile", "--every", "0.05", "--store", store.name)
    command = [sys.executable, "-c", "from smsretry.cli import main; main()", *words]
    env = {**os.environ, **account(twilio)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as running:
        assert running.stdout is not None
        assert running.stdout.readline().startswith("1 asked about, 1 of them")
        assert running.stdout.readline().startswith("0 asked about")
        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=10) == 0


def test_a_number_is_put_on_the_list_and_taken_off_without_being_shown(store):
    told = [
        said(store, "suppressed", "add", TO),
        said(store, "suppressed", "add", TO, "--sender", FROM, "--reason", "refused"),
        said(store, "suppressed", "add", OTHER, "--sender", "MG1"),
        said(store, "suppressed", "list"),
        said(store, "suppressed", "list", TO),
        said(store, "suppressed", "remove", TO),
        said(store, "suppressed", "remove", TO, code=1),
    ]
    assert told[0] == "***23 is on the list, for every sender."
    assert told[1] == "***23 is on the list, for ***06."
    assert "***99 MG1 opted_out" in told[3]
    assert told[3].endswith("3 entries.")
    assert "***23 ***06 refused" in told[4]
    assert told[4].endswith("2 entries.")
    assert told[5] == "***23 is off the list, for every sender."
    assert "There is no entry of ***23 for every sender." in told[6]
    assert not any(number.lstrip("+") in line for number in (TO, OTHER, FROM) for line in told)
    assert store.suppressed(TO, FROM) is not None
    assert store.suppressed(TO, "another") is None


def test_a_list_is_imported_and_exported_whole(store, tmp_path):
    file = tmp_path / "list.csv"
    file.write_text(f"to,sender,code\n{TO},,\n{OTHER},MG1,21610\n", "utf-8-sig")
    assert said(store, "suppressed", "import", str(file)) == "2 added, 0 known already."
    assert said(store, "suppressed", "import", "-", given=f"to\n{TO}\n+14155550100\n") == "1 added, 1 known already."
    assert TO in said(store, "suppressed", "export", "-")
    assert said(store, "suppressed", "export", str(tmp_path / "all.csv")) == "3 written."
    again = SQLStore("sqlite://")
    with again:
        assert again.import_suppressions(tmp_path / "all.csv").added == 3
        found = again.suppressed(OTHER, "MG1")
    assert found is not None
    assert found.code == "21610"


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"number\n1\n", "must name columns"), (b"to,since\n+14155550123,x\n", "Line 2"), (b"to\n\xff\n", "not UTF-8")],
)
def test_a_file_that_is_no_list_is_refused_with_what_is_wrong(store, tmp_path, content: bytes, why: str):
    (tmp_path / "list.csv").write_bytes(content)
    told = said(store, "suppressed", "import", str(tmp_path / "list.csv"), code=1)
    assert why in told
    assert "list.csv" in told
    assert "4155550123" not in told
    assert list(store.suppressions()) == []


def test_what_is_no_number_is_not_put_on_the_list(store):
    for number in ("", "4155550101", "hello"):
        assert "Add + and the country" in said(store, "suppressed", "add", number, code=1)
        assert "Add + and the country" in said(store, "suppressed", "remove", number, code=1)
    for number in ("4155550101", "hello"):
        assert said(store, "suppressed", "list", number, code=1).startswith("Error: to must be a number in E.164")
    assert "sender must be" in said(store, "suppressed", "add", TO, "--sender", "15005550006", code=1)


@pytest.mark.parametrize("words", [("list",), ("add", TO), ("remove", TO), ("export", "-")])
def test_no_command_makes_a_database(words, tmp_path):
    with SQLStore(f"sqlite:///{tmp_path / 'misspelt.db'}") as nowhere:
        assert "There is no database" in said(nowhere, "suppressed", *words, code=1)
    assert list(tmp_path.iterdir()) == []


def test_a_list_may_come_before_the_first_text(tmp_path):
    (tmp_path / "left.csv").write_text(f"to\n{OTHER}\n")
    with SQLStore(f"sqlite:///{tmp_path / 'sms.db'}") as new:
        for words in (("add", TO), ("import", str(tmp_path / "left.csv"))):
            assert "or make it with --create" in said(new, "suppressed", *words, code=1)
        assert "is on the list" in said(new, "suppressed", "add", TO, "--create")
        assert "1 added" in said(new, "suppressed", "import", str(tmp_path / "left.csv"), "--create")
        assert len(list(new.suppressions())) == 2


def test_a_store_may_be_named_by_its_file_as_for_send(store, tmp_path):
    file = str(tmp_path / "sms.db")
    for words in (("suppressed", "add", TO), ("suppressed", "list")):
        assert CliRunner().invoke(smsretry, [*words, "--store", file]).exit_code == 0
    assert (
        "There is no message 'spring:1'" in CliRunner().invoke(smsretry, ["show", "spring:1", "--store", file]).output
    )
