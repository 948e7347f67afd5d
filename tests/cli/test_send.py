"""A list is sent from the command line: checked first, once, and to the end, whatever happens in the middle."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.store.clock import pass_time

from smsretry import Message
from smsretry.cli.commands import smsretry
from smsretry.cli.ending import Course
from smsretry.contacts.messages import message_id_of, name_space_of
from smsretry.core.suppression import Suppression
from smsretry.store import SQLStore
from smsretry.testing import TwilioSimulator
from smsretry.testing.simulator import Refused

TEXT = "Hi {name}, your table is ready."
ROWS = [f"+1415555{number:04d},N{number}" for number in range(200)]
NO_ACCOUNT = {name: None for name in os.environ if name.startswith("TWILIO_")}


@pytest.fixture
def twilio() -> Iterator[TwilioSimulator]:
    with TwilioSimulator() as simulator:
        yield simulator


def listed(folder: Path, *rows: str, header: str = "phone,name") -> Path:
    path = folder / "contacts.csv"
    path.write_text("\n".join([header, *rows]), "utf-8")
    return path


def arguments(file: Path, *options: str, template: str = TEXT) -> list[str]:
    store = str(file.parent / "sms.db")
    return ["send", str(file), "--template", template, "--campaign", "spring", "--store", store, *options]


def checked(file: Path, *options: str, template: str = TEXT) -> Result:
    """Run the command here, with no account: nothing can be sent."""
    return CliRunner().invoke(
        smsretry, arguments(file, *options, template=template), env={**NO_ACCOUNT, "COLUMNS": "120"}
    )


def command(*words: str) -> list[str]:
    return [sys.executable, "-c", "from smsretry.cli import main; main()", *words]


def environment(twilio: TwilioSimulator) -> dict[str, str]:
    own = {"TWILIO_ACCOUNT_SID": twilio.account_sid, "TWILIO_AUTH_TOKEN": twilio.auth_token}
    kept = {name: value for name, value in os.environ.items() if name not in NO_ACCOUNT}
    return kept | own | {"TWILIO_BASE_URL": twilio.url, "TWILIO_FROM_NUMBER": "+15005550006", "COLUMNS": "120"}


def sent(twilio: TwilioSimulator, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(*words), env=environment(twilio), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def begun(twilio: TwilioSimulator, file: Path, *options: str, texts: int) -> subprocess.Popen[str]:
    """Start the command, and return it when so many texts were taken."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command(*arguments(file, *options)), env=environment(twilio), **pipes)
    assert twilio.wait_for(lambda: twilio.text_count >= texts, timeout_s=30)
    return process


def ended(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str]:
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    return process.returncode, errors


def test_a_dry_run_says_what_would_be_sent_and_needs_no_account(tmp_path: Path) -> None:
    file = listed(tmp_path, "415 555 0101,Ann", "(415) 555-0101,Ann", "415 555 0102,Zoë", "415 555 0103,")
    done = checked(file, "--dry-run", "--region", "US", "--rate", "2")
    assert done.exit_code == 0, done.output
    for words in (
        "rows                                               │     4",
        "messages                                           │     3",
        "of 1 segment                                     │     3",
        "for ë U+00EB LATIN SMALL LETTER E WITH DIAERESIS │     1",
        "At 2 segments a second it takes 0:00:02",
        "are there again: line 3",
        "nothing in {name}: line 5",
    ):
        assert words in done.output
    assert list(tmp_path.iterdir()) == [file]


def test_a_list_with_bad_rows_is_refused_with_their_lines(tmp_path: Path) -> None:
    done = checked(listed(tmp_path, '+14155550101,"A\nnn"', "+14155550102,Bob,x", ",Cid"), "--dry-run")
    assert done.exit_code == 1
    assert "│ 4    │ wrong count of cells: has 3, and the header 2" in done.output
    assert "│ 5    │ missing number" in done.output
    assert "2 rows are bad, so nothing is sent" in done.output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--template", "Hi {nme}"], "no column 'nme'. It has: phone, name"),
        (["--template", "Hi {name"], "names no column"),
        (
            ["--number-column", "mobile"],
            "no column 'mobile'. It has: phone, name. Name that of the numbers with --number-column",
        ),
        (["--region", "USA"], "two capital letters"),
        (["--campaign", ""], "--campaign must not be empty. Give it a name"),
        (["--template", "Hi {name}, caf\udce9."], "The text of --template is not UTF-8"),
        (["--delimiter", "ab"], "one character"),
        ([], "TWILIO_ACCOUNT_SID is missing"),
    ],
)
def test_what_cannot_work_is_told_before_anything_is_sent(tmp_path: Path, options: list[str], words: str) -> None:
    done = checked(listed(tmp_path, "+14155550101,Ann"), *options)
    assert done.exit_code == 1
    assert words in done.output
    assert not (tmp_path / "sms.db").exists()


def test_a_number_to_send_from_is_needed(tmp_path: Path) -> None:
    account = {"TWILIO_ACCOUNT_SID": "AC" + 32 * "1", "TWILIO_AUTH_TOKEN": "secret"}
    words = arguments(listed(tmp_path, "+14155550101,Ann"))
    done = CliRunner().invoke(smsretry, words, env={**NO_ACCOUNT, **account})
    assert done.exit_code == 1
    assert "Give --from" in done.output


def test_a_campaign_is_not_gone_on_with_where_there_is_no_store(tmp_path: Path, twilio: TwilioSimulator) -> None:
    file = listed(tmp_path, "+14155550101,Ann")
    done = CliRunner().invoke(smsretry, arguments(file, "--resume"), env=environment(twilio))
    assert done.exit_code == 1
    assert "There is no database at" in done.output
    assert list(tmp_path.iterdir()) == [file]


def test_a_template_is_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("\ufeffHi {name},\n’til eight.\n", "utf-8")
    words = ["send", str(listed(tmp_path, "+14155550101,Ann")), "--campaign", "spring", "--dry-run"]
    done = CliRunner().invoke(smsretry, [*words, "--template-file", str(tmp_path / "text.txt")])
    assert done.exit_code == 0
    assert "RIGHT SINGLE QUOTATION MARK" in done.output
    assert "ZERO WIDTH" not in done.output
    assert CliRunner().invoke(smsretry, words).exit_code == 2


def test_a_list_is_sent_once_and_a_resumed_one_costs_no_request(tmp_path: Path, twilio: TwilioSimulator) -> None:
    file = listed(tmp_path, *ROWS[:40], "+14155550001,Second", *ROWS[:3])
    done = sent(twilio, *arguments(file))
    assert "accepted │ 41" in done.stdout
    assert (twilio.posts, twilio.texts_doubled) == (41, 0)
    assert {text.body for text in twilio.texts_to("+14155550001")} == {TEXT.format(name=n) for n in ("N1", "Second")}
    again = listed(tmp_path, "+14155550001,Second", *reversed(ROWS[:40]))
    assert "41 of 41 messages are in the store already" in sent(twilio, *arguments(again, "--resume")).stdout
    assert twilio.posts == 41


def test_what_is_not_accepted_is_told_and_bad_rows_are_left_out(tmp_path: Path, twilio: TwilioSimulator) -> None:
    twilio.always(Refused(code=21211), to="+14155550001")
    file = listed(tmp_path, *ROWS[:5], "12,Short")
    done = sent(twilio, *arguments(file, "--bad-rows", "skip"), code=3)
    assert "invalid_number 21211 (permanent)" in done.stdout
    with SQLStore(f"sqlite:///{tmp_path / 'sms.db'}") as store:
        summary = store.campaign_summary("spring")
    assert (summary.sent, summary.failed, summary.skipped, summary.planned) == (4, 1, 1, 6)


def test_who_must_not_be_texted_is_not(tmp_path: Path, twilio: TwilioSimulator) -> None:
    twilio.always("opted_out", to="+14155550002")
    file = listed(tmp_path, "+14155550001,A", "+14155550002,B", *ROWS[100:110])
    with SQLStore(f"sqlite:///{tmp_path / 'sms.db'}") as store:
        store.suppress(Suppression(to="+14155550001"))
        done = sent(twilio, *arguments(file), code=3)
        assert "suppressed │ 1" in " ".join(done.stdout.split())
        assert twilio.texts_to("+14155550001") == []
        assert store.suppressed("+14155550002", "+15005550006") is not None
        summary = store.campaign_summary("spring")
    assert (summary.sent, summary.failed, summary.suppressed, summary.planned) == (10, 1, 1, 12)


def test_a_campaign_that_is_killed_and_stopped_goes_on_and_texts_each_once(tmp_path: Path) -> None:
    file, url = listed(tmp_path, *ROWS), f"sqlite:///{tmp_path / 'sms.db'}"
    with TwilioSimulator(latency_s=0.02) as twilio, SQLStore(url) as store:
        twilio.script(*["lost_after_taken", "lost_before_taken", "rate_limited"] * 3)
        assert ended(begun(twilio, file, texts=60), signal.SIGKILL)[0] == -signal.SIGKILL
        assert twilio.text_count < 120
        pass_time(store, 300)  # nobody holds the claims of the dead any more
        code, errors = ended(begun(twilio, file, "--resume", texts=130), signal.SIGINT)
        assert (code, twilio.text_count < len(ROWS)) == (130, True)
        assert f"smsretry send {file}" in errors
        assert errors.rstrip().endswith("--resume")
        pass_time(store, 300)  # what they left in doubt, and Twilio does not list, was never taken
        sent(twilio, *arguments(file, "--resume"))
        assert {*twilio.count_by_message().values()} == {1}
        assert twilio.text_count == store.campaign_summary("spring").sent == len(ROWS)


def test_a_rate_is_kept_to(tmp_path: Path, twilio: TwilioSimulator) -> None:
    file = listed(tmp_path, *ROWS[:24])
    sent(twilio, *arguments(file, "--rate", "20"))
    first, last = twilio.requests[0].at, twilio.requests[-1].at
    assert twilio.text_count == 24
    assert (last - first).total_seconds() >= (24 - 20) / 20 - 0.05, "a second's worth at once, and then twenty a second"


def test_a_campaign_that_is_told_to_end_stops_as_by_ctrl_c(tmp_path: Path) -> None:
    with TwilioSimulator(latency_s=0.02) as twilio:
        code, errors = ended(begun(twilio, listed(tmp_path, *ROWS), texts=20), signal.SIGTERM)
        assert (code, twilio.text_count < len(ROWS)) == (130, True)
        assert "--resume" in errors
        assert twilio.posts == twilio.text_count, "what was in flight came back"


def test_what_failed_for_the_account_is_sent_once_more_when_it_is_mended(
    tmp_path: Path, twilio: TwilioSimulator
) -> None:
    twilio.always(Refused(code=21212), to="+14155550001")
    twilio.always(Refused(code=21211), to="+14155550002")
    file = listed(tmp_path, *ROWS[:4])
    done = sent(twilio, *arguments(file), code=3)
    assert "this sends them once more: --resume --retry sender_config" in told(done)
    twilio.always(None, to="+14155550001")
    assert "accepted │ 2" in told(sent(twilio, *arguments(file, "--resume"), code=3))
    done = sent(twilio, *arguments(file, "--resume", "--retry", "sender_config", "--retry", "auth"), code=3)
    assert "Sent once more, since they failed with sender_config: 1." in told(done)
    assert "accepted │ 3" in told(done)
    assert [len(twilio.texts_to(f"+1415555000{n}")) for n in range(4)] == [1, 1, 0, 1]
    assert twilio.posts == 5


def test_only_a_campaign_that_goes_on_is_retried(tmp_path: Path) -> None:
    done = checked(listed(tmp_path, *ROWS[:2]), "--retry", "auth")
    assert done.exit_code == 2
    assert "Say --resume too" in done.output
    assert checked(listed(tmp_path, *ROWS[:2]), "--resume", "--retry", "invalid_number").exit_code == 2


def test_rows_that_failed_are_written_with_the_reason_and_may_be_sent_as_they_are(
    tmp_path: Path, twilio: TwilioSimulator
) -> None:
    twilio.always(Refused(code=21211), to="+14155550001")
    file, failed = (
        listed(tmp_path, "+14155550000;Ann;1", "+14155550001;Zoë;2", header="phone;name;code"),
        tmp_path / "f.csv",
    )
    assert "--resume --failed failed.csv writes them" in told(sent(twilio, *arguments(file), code=3))
    done = sent(twilio, *arguments(file, "--resume", "--failed", str(failed)), code=3)
    assert f"1 row that failed: see {failed}." in told(done)
    assert failed.read_text("utf-8").splitlines() == [
        "phone;name;code;smsretry_line;smsretry_kind;smsretry_code;smsretry_reason",
        "+14155550001;Zoë;2;3;invalid_number;21211;permanent",
    ]
    again = ["send", str(failed), "--template", TEXT, "--campaign", "again", "--store", str(tmp_path / "sms.db")]
    sent(twilio, *again, "--failed", str(tmp_path / "g.csv"), code=3)
    assert (tmp_path / "g.csv").read_text("utf-8").replace(";3;", ";2;") == failed.read_text("utf-8").replace(
        ";3;", ";2;"
    )


@pytest.mark.parametrize(("name", "words"), [("contacts.csv", "is the list itself"), ("no/f.csv", "is no folder")])
def test_where_the_rows_that_failed_cannot_be_written_nothing_is_sent(tmp_path: Path, name: str, words: str) -> None:
    done = checked(listed(tmp_path, *ROWS[:2]), "--failed", str(tmp_path / name))
    assert done.exit_code == 1
    assert words in " ".join(done.output.split())


def test_messages_that_are_in_no_row_any_more_are_told_and_may_be_taken_back(
    tmp_path: Path, twilio: TwilioSimulator
) -> None:
    file, url = listed(tmp_path, *ROWS[:3]), f"sqlite:///{tmp_path / 'sms.db'}"
    planned = [
        Message(f"+1415555000{n}", TEXT.format(name=f"N{n}"), id=id_in("spring", n), campaign="spring")
        for n in range(5)
    ]
    with SQLStore(url) as store:
        store.plan(planned)
        done = sent(twilio, *arguments(file, "--resume"))
        assert f"2 messages of the campaign in no row of {file}, so not sent." in told(done)
        for message in planned[3:]:
            words = next(line for line in done.stdout.splitlines() if str(message.id) in line)
            assert CliRunner().invoke(smsretry, words.split()[1:]).exit_code == 0
        assert store.campaign_summary("spring").canceled == 2
    assert "in no row" not in told(sent(twilio, *arguments(file, "--resume")))


def id_in(campaign: str, number: int) -> str:
    return message_id_of(name_space_of(campaign), f"+1415555{number:04d}", 1)


def told(done: subprocess.CompletedProcess[str]) -> str:
    return " ".join(done.stdout.split())


def test_a_campaign_whose_messages_wait_says_until_when(tmp_path: Path, twilio: TwilioSimulator) -> None:
    twilio.always(Refused(status=401, code=20003))
    process = begun(twilio, listed(tmp_path, *ROWS[:3]), texts=0)
    assert process.stdout is not None
    on_hold = next(line for line in process.stdout if "Nothing is sent before" in line)
    assert "the provider refuses the account (auth 20003)" in on_hold
    ended(process, signal.SIGINT)
    twilio.always(None)
    process = begun(twilio, tmp_path / "contacts.csv", "--resume", texts=0)
    assert process.stdout is not None
    waiting = next(line for line in process.stdout if "Nothing is sent before" in line)
    assert re.search(r"before \d\d:\d\d:\d\d: 3 messages wait", waiting)
    ended(process, signal.SIGINT)


STOPPED_AS_IT_SAYS = """
import signal, sys
from smsretry.cli import main

class Heard:
    def __init__(self, file, words):
        self.file, self.words = file, words

    def write(self, text):
        done = self.file.write(text)
        if self.words in text:
            signal.raise_signal(signal.SIGTERM)
        return done

    def __getattr__(self, name):
        return getattr(self.file, name)

sys.stdout = Heard(sys.stdout, sys.argv.pop(1))
main()
"""


@pytest.mark.parametrize("words", ["accepted 6", "The campaign spring"])
def test_a_campaign_that_is_told_to_end_when_all_were_sent_says_so(
    tmp_path: Path, twilio: TwilioSimulator, words: str
) -> None:
    run = [sys.executable, "-c", STOPPED_AS_IT_SAYS, words, *arguments(listed(tmp_path, *ROWS[:6]))]
    done = subprocess.run(run, env=environment(twilio), capture_output=True, text=True, timeout=60, check=False)
    assert twilio.text_count == 6
    assert "accepted │ 6" in " ".join(done.stdout.split())
    assert (done.returncode, done.stderr) == (0, "")


def test_whoever_stops_a_campaign_is_told_how_far_it_was() -> None:
    course = Course()
    assert course.where_it_stopped() == "Stopped before this run sent a text."
    course.has_begun = True
    assert course.where_it_stopped().startswith("Stopped. To go on:\nsmsretry ")
    course.has_ended = True
    assert course.where_it_stopped().startswith("Stopped when every message had ended. To see what became of them:\n")
    assert course.where_it_stopped().endswith(" --resume")
