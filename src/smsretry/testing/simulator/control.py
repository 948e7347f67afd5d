"""Answer requests about the simulator itself, so that a test can steer and count one in another process.

================================= ===================================================================================
``GET  /__simulator__/counts``    posts, gets, texts, texts doubled and callbacks, as numbers
``GET  /__simulator__/state``     the same, every request, every text, and how many texts each message became
``POST /__simulator__/script``    ``{"faults": ["hang", {"kind": "delayed", "delay_s": 1}]}``; also ``to``, ``on``
``POST /__simulator__/always``    ``{"fault": "unavailable"}`` or ``{"fault": null}``; also ``to``, ``on``
``POST /__simulator__/callbacks`` ``{"plan": {"undelivered": {"30003": 0.1}, "lost": 0.05}}`` or ``{"plan": null}``
``POST /__simulator__/fate``      ``{"status": "undelivered", "code": 30003}``; also ``to``, ``callbacks``,
                                  ``before_answer``
``POST /__simulator__/receive``   ``{"from": "+1…", "to": "+1…", "body": "STOP", "url": "http://…"}``: post an inbound
                                  message; also ``opt_out_type``, ``messaging_service_sid``; answers what the
                                  application said: ``status`` and ``body``
``POST /__simulator__/outage``    ``{"duration_s": 2}``: the port refuses for two seconds
``POST /__simulator__/reset``     forget requests, texts and scripts
================================= ===================================================================================

Bodies are JSON. These requests need no credentials and are not counted.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from smsretry.testing.simulator.fates import CallbackPlan
from smsretry.testing.simulator.faults import fault_from_dict, fault_to_dict
from smsretry.testing.simulator.http1 import Answer, Delivery, RequestLine, Whole, delivery_of
from smsretry.testing.simulator.plan import NORMAL, Call
from smsretry.testing.simulator.webhooks import inbound_form

if TYPE_CHECKING:
    from smsretry.testing.simulator.courier import WebhookAnswer
    from smsretry.testing.simulator.fates import Fate
    from smsretry.testing.simulator.ledger import Callback, Request, Text
    from smsretry.testing.simulator.server import Finish
    from smsretry.testing.simulator.simulator import TwilioSimulator

PREFIX: Final = "/__simulator__/"
_KEYS: Final[Mapping[str, Mapping[str, None]]] = {
    "POST script": dict.fromkeys(("faults", "to", "on")),
    "POST always": dict.fromkeys(("fault", "to", "on")),
    "POST callbacks": dict.fromkeys(("plan",)),
    "POST fate": dict.fromkeys(("status", "code", "to", "callbacks", "before_answer")),
    "POST receive": dict.fromkeys(("from", "to", "body", "url", "opt_out_type", "messaging_service_sid")),
    "POST outage": dict.fromkeys(("duration_s",)),
}
_NEEDED: Final = ("from", "to", "body", "url")
_RECEIVE: Final = "POST receive"
_WISHES: Final = "counts, state, script, always, callbacks, fate, receive, outage or reset"


class Control:
    """Translate control requests into calls of one simulator; ``post_inbound`` posts a form to a URL, signed."""

    def __init__(
        self, simulator: TwilioSimulator, *, post_inbound: Callable[[Mapping[str, str], str], Awaitable[WebhookAnswer]]
    ) -> None:
        self._simulator = simulator
        self._post_inbound = post_inbound

    def begin(self, line: RequestLine) -> Finish:
        """Return what answers the control request that begins with ``line``."""
        wish = f"{line.method} {line.target.removeprefix(PREFIX)}"
        return self._receive if wish == _RECEIVE else partial(self._finish, wish)

    def _finish(self, wish: str, whole: Whole) -> Delivery:
        try:
            return _delivered(200, self._done(wish, _json_object(whole.body)))
        except LookupError as error:
            return _delivered(404, {"error": str(error.args[0])})
        except (ValueError, TypeError, RecursionError) as error:
            return _delivered(400, {"error": str(error)})

    async def _receive(self, whole: Whole) -> Delivery:
        try:
            data = _json_object(whole.body)
            _check_inbound(data)
            answer = await self._post_inbound(self._inbound(data), data["url"])
        except (ValueError, TypeError, RecursionError) as error:
            return _delivered(400, {"error": str(error)})
        except OSError as error:
            return _delivered(502, {"error": f"The application did not answer ({type(error).__name__}: {error})."})
        return _delivered(200, {"status": answer.status, "body": answer.text})

    def _inbound(self, data: Mapping[str, str]) -> dict[str, str]:
        return inbound_form(
            account_sid=self._simulator.account_sid,
            from_number=data["from"],
            to_number=data["to"],
            body=data["body"],
            messaging_service_sid=data.get("messaging_service_sid"),
            opt_out_type=data.get("opt_out_type"),
            media_urls=(),
        )

    def _done(self, wish: str, data: Mapping[str, Any]) -> dict[str, Any]:
        _check_keys(wish, data)
        match wish:
            case "GET counts":
                return counts(self._simulator)
            case "GET state":
                return state(self._simulator)
            case "POST script":
                faults = [fault_from_dict(each) for each in _list(data.get("faults"))]
                self._simulator.script(*faults, to=data.get("to"), on=_call(data))
            case "POST always":
                fault = data.get("fault")
                standing = None if fault is None else fault_from_dict(fault)
                self._simulator.always(standing, to=data.get("to"), on=_call(data))
            case "POST callbacks":
                plan = data.get("plan")
                self._simulator.plan_callbacks(None if plan is None else CallbackPlan.from_dict(plan))
            case "POST fate":
                wanted: dict[str, Any] = {"status": None, **data}
                self._simulator.script_fate(**wanted)
            case "POST outage":
                self._simulator.outage(float(data.get("duration_s", 0)))
            case "POST reset":
                self._simulator.reset()
            case _:
                raise LookupError(f"There is no {wish!r}. Ask for {_WISHES}.")
        return counts(self._simulator)


def counts(simulator: TwilioSimulator) -> dict[str, Any]:
    """Return the figures of ``simulator`` as a JSON object."""
    called = simulator.callback_counts
    return {
        "posts": simulator.posts,
        "gets": simulator.gets,
        "texts": simulator.text_count,
        "texts_doubled": simulator.texts_doubled,
        "unplayed": simulator.unplayed,
        "under_way": simulator.under_way,
        "callbacks_sent": called.sent,
        "callbacks_doubled": called.doubled,
        "callbacks_repeated": called.repeated,
        "callbacks_lost": called.lost,
        "callbacks_unanswered": called.unanswered,
    }


def state(simulator: TwilioSimulator) -> dict[str, Any]:
    """Return all that ``simulator`` knows as a JSON object: with its figures, every request, text and message.

    Numbers and texts are in it, unmasked: what a test compares with what it sent.
    """
    messages = [{"to": to, "body": body, "texts": texts} for (to, body), texts in simulator.count_by_message().items()]
    fates = simulator.fates
    return counts(simulator) | {
        "requests": [_request_json(request) for request in simulator.requests],
        "taken": [_text_json(text, fates[text.sid]) for text in simulator.texts if text.sid in fates],
        "messages": messages,
        "callbacks": [_callback_json(callback) for callback in simulator.callbacks],
    }


def _request_json(request: Request) -> dict[str, Any]:
    return {
        "method": request.method,
        "target": request.target,
        "form": request.form,
        "complete": request.complete,
        "fault": request.fault and fault_to_dict(request.fault),
        "at": request.at.isoformat(),
        "at_s": request.at_s,
    }


def _callback_json(callback: Callback) -> dict[str, Any]:
    return {
        "sid": callback.sid,
        "url": callback.url,
        "form": dict(callback.form),
        "answer": callback.answer,
        "is_double": callback.is_double,
        "is_repeat": callback.is_repeat,
        "at": callback.at.isoformat(),
        "at_s": callback.at_s,
    }


def _text_json(text: Text, fate: Fate) -> dict[str, Any]:
    return {
        "sid": text.sid,
        "to": text.to,
        "body": text.body,
        "sender": text.sender,
        "messaging_service_sid": text.messaging_service_sid,
        "media_urls": list(text.media_urls),
        "params": dict(text.params),
        "fate": {"status": fate.status, "code": fate.code},
        "at": text.at.isoformat(),
        "at_s": text.at_s,
    }


def _delivered(status: int, data: Mapping[str, Any]) -> Delivery:
    return delivery_of(Answer(status=status, body=json.dumps(data).encode()), NORMAL)


def _json_object(body: bytes) -> Mapping[str, Any]:
    data = json.loads(body) if body else {}
    if not isinstance(data, dict):
        raise TypeError(f"The body must be a JSON object, got {type(data).__name__}.")
    return data


def _check_keys(wish: str, data: Mapping[str, Any]) -> None:
    known = _KEYS.get(wish, {})
    if odd := [name for name in data if name not in known]:
        raise ValueError(f"{wish} takes {' and '.join(known) or 'no keys'}, got {odd[0]!r}.")
    if not isinstance(data.get("to"), (str, type(None))):
        raise TypeError("to must be a number such as '+14155550101', or null for everyone.")


def _check_inbound(data: Mapping[str, Any]) -> None:
    _check_keys(_RECEIVE, data)
    if missing := [name for name in _NEEDED if name not in data]:
        raise ValueError(f"{_RECEIVE} needs {', '.join(_NEEDED)}; {missing[0]!r} is missing.")
    if odd := [name for name, value in data.items() if not isinstance(value, str)]:
        raise TypeError(f"{odd[0]} must be text, got {type(data[odd[0]]).__name__}.")


def _list(faults: object) -> list[Any]:
    if not isinstance(faults, list):
        raise TypeError(f"faults must be a list of faults or of their names, got {type(faults).__name__}.")
    return faults


def _call(data: Mapping[str, Any]) -> Call:
    return Call(data.get("on", Call.CREATE))
