"""Send a campaign through a worker to a Twilio that loses answers and tells of deliveries badly; compare the ends.

    python -m tests.integration.delivery_job [MESSAGES] [DATABASE_URL]

The Twilio client, the simulator, a Celery worker and a callback server are real, and talk over HTTP.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from urllib.parse import parse_qs, urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from tests.integration.celery_workers import on_files, running_worker
from tests.store.clock import pass_time

from smsretry import Message, RetryPolicy
from smsretry.adapters.celery import SMSTask
from smsretry.callbacks import Polled, poll
from smsretry.callbacks.twilio import TwilioCallbacks
from smsretry.callbacks.web import wsgi_app
from smsretry.core.delivery import DeliveryRetries
from smsretry.senders.twilio import TwilioSender
from smsretry.store import MessageState, SQLStore
from smsretry.store.records import CampaignSummary
from smsretry.testing.simulator import CallbackPlan, Fate, Reset, TwilioSimulator

CAMPAIGN = "spring"
PATIENCE_S = 900.0
PLAN = CallbackPlan(undelivered={30003: 0.1}, doubled=0.05, lost=0.05, shuffled=1.0, before_answer=0.1)
LOST_ANSWERS = {Reset(taken=True): 0.07, Reset(taken=False): 0.03}
RETRIES = DeliveryRetries(codes={"30003"}, policy=RetryPolicy(max_retries=1, first_delay_s=2.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What is there when every message has come to its end."""

    messages: int
    wrong: tuple[str, ...]
    """The messages that do not stand where the simulator says."""
    doubled: int
    """Texts beyond the one of each message and round."""
    summary: CampaignSummary
    truth: Counter[str]
    """What became of each message's last text, as the simulator says."""
    polled: Polled
    callbacks: Any
    posts: int
    took_s: float


class _Threaded(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 128


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        del format, args


def opened(url: str) -> SQLStore:
    """Return the store as every process opens it."""
    return SQLStore(url, delivery_retries=RETRIES)


@contextlib.contextmanager
def serving(app: Any) -> Iterator[str]:
    """Serve a WSGI application on loopback, and lend its URL."""
    with make_server("127.0.0.1", 0, app, _Threaded, _Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class _Late:
    """Be the application, whose callbacks are made when its URL is known."""

    def __init__(self) -> None:
        self.app: Any = None

    def __call__(self, *arguments: Any) -> Any:
        return self.app(*arguments)


def run(count: int, folder: Path, url: str) -> Ended:
    """Send ``count`` messages, wait for their ends, ask about what was never told, and compare."""
    began, late, conf = time.monotonic(), _Late(), on_files(folder)
    simulator = TwilioSimulator(callbacks=PLAN, rates=LOST_ANSWERS, list_lag_s=0.5, seed=1)
    with simulator, opened(url) as store, serving(late) as public:
        environment = {
            "TWILIO_ACCOUNT_SID": simulator.account_sid,
            "TWILIO_AUTH_TOKEN": simulator.auth_token,
            "TWILIO_FROM_NUMBER": "+15005550006",
            "TWILIO_BASE_URL": simulator.url,
            "SMSRETRY_TEST_STORE": url,
            "SMSRETRY_TEST_CALLBACKS": f"{public}/twilio",
        }
        options = ("--pool", "threads", "--concurrency", "8")
        with running_worker(
            "tests.integration.delivery_tasks", conf, folder, *options, environment=environment
        ) as worker:
            task = _planning_task(worker, store)
            callbacks = TwilioCallbacks(simulator.auth_token, public, store, queue=task)
            late.app = wsgi_app(callbacks)
            for message in planned(count):
                task.send(message)
            polled = _until_all_have_ended(store, simulator, task, environment)
            return _compared(count, store, simulator, polled, time.monotonic() - began)


def planned(count: int) -> Iterator[Message]:
    """Yield the messages of the campaign."""
    for number in range(count):
        yield Message(f"+1555{number:07d}", f"Your order {number} is ready.", id=f"order:{number}", campaign=CAMPAIGN)


def _planning_task(worker: Any, store: SQLStore) -> SMSTask:
    from tests.integration.celery_workers import only_the_worker_sends

    from smsretry.adapters.celery import sms_task

    return sms_task(worker.app, only_the_worker_sends, name="shop.send_sms", journal=store)


def _until_all_have_ended(
    store: SQLStore, simulator: TwilioSimulator, task: SMSTask, environment: dict[str, str]
) -> Polled:
    """Wait until nothing is pending and all callbacks are out; ask about those that were lost, as hours pass."""
    sender = TwilioSender(
        simulator.account_sid, simulator.auth_token, from_number="+15005550006", base_url=environment["TWILIO_BASE_URL"]
    )
    asked = final = failed = 0
    deadline = time.monotonic() + PATIENCE_S
    while True:
        _settled(store, simulator, deadline)
        if store.campaign_summary(CAMPAIGN).awaiting == 0:
            return Polled(asked=asked, final=final, failed=failed)
        pass_time(store, 16 * 60.0)  # a text is asked about a quarter of an hour after it was accepted
        polled = poll(store, sender, task)
        asked, final, failed = asked + polled.asked, final + polled.final, failed + polled.failed


def _settled(store: SQLStore, simulator: TwilioSimulator, deadline: float) -> None:
    while store.campaign_summary(CAMPAIGN).pending or simulator.under_way:
        if time.monotonic() > deadline:
            msg = f"Not all have ended: {store.campaign_summary(CAMPAIGN)}"
            raise TimeoutError(msg)
        time.sleep(0.1)


def _compared(count: int, store: SQLStore, simulator: TwilioSimulator, polled: Polled, took_s: float) -> Ended:
    fates: dict[str, dict[int, list[Fate]]] = {}
    for text in simulator.texts:
        name, round_ = _names_in(text.params["StatusCallback"][0])
        fates.setdefault(name, {}).setdefault(round_, []).append(simulator.fates[text.sid])
    truth: Counter[str] = Counter()
    wrong = []
    for number in range(count):
        name, record = f"order:{number}", store.message(f"order:{number}")
        last = fates[name][max(fates[name])][-1] if name in fates else None
        truth[str(last and last.status)] += 1
        stands = record is not None and record.state is MessageState.ACCEPTED
        if record is None or last is None or not stands or record.delivery != str(last.status):
            wrong.append(f"{name}: {record} where the simulator says {last}")
    texts = sum(len(one) for rounds in fates.values() for one in rounds.values())
    return Ended(
        messages=count,
        wrong=tuple(wrong),
        doubled=texts - sum(len(rounds) for rounds in fates.values()),
        summary=store.campaign_summary(CAMPAIGN),
        truth=truth,
        polled=polled,
        callbacks=simulator.callback_counts,
        posts=simulator.posts,
        took_s=took_s,
    )


def _names_in(url: str) -> tuple[str, int]:
    """Return the message and the round that a text was sent for: the callback's URL says so."""
    query = parse_qs(urlsplit(url).query)
    return query["smsretry_id"][0], int(query["smsretry_mark"][0].partition(".")[0])


def main(count: int, url: str | None) -> int:
    """Run it, print the figures, and return 1 where anything is wrong."""
    with tempfile.TemporaryDirectory() as folder:
        ended = run(count, Path(folder), url or f"sqlite:///{folder}/sms.db")
    print(f"{ended.messages} messages, {ended.posts} POSTs, {ended.took_s:.0f} s")
    print(f"true ends of the last text: {dict(ended.truth)}")
    print(f"in the store: {ended.summary}")
    print(f"callbacks: {ended.callbacks}; asked about: {ended.polled}")
    print(f"texts doubled: {ended.doubled}; messages that stand elsewhere than the simulator says: {len(ended.wrong)}")
    print("\n".join(ended.wrong[:10]))
    return int(bool(ended.wrong or ended.doubled))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 2_000, sys.argv[2] if len(sys.argv) > 2 else None))
