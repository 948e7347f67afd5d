"""Speak to the simulator with nothing but the standard library, byte by byte where it matters."""

from __future__ import annotations

import json
import socket
import time
from base64 import b64encode
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlencode, urlsplit

from smsretry.testing.simulator import TwilioSimulator

TO = "+15551230001"
FROM = "+15005550006"
SERVICE = "MG" + "a" * 32
TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Got:
    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


def basic(name: str, password: str) -> str:
    return f"Basic {b64encode(f'{name}:{password}'.encode()).decode()}"


def messages_path(simulator: TwilioSimulator) -> str:
    return f"/2010-04-01/Accounts/{simulator.account_sid}/Messages.json"


def ask(simulator: TwilioSimulator, method: str, path: str, *, body: str = "", authorization: str | None = None) -> Got:
    headers = {
        "Content-Type": "application/x-www-form-urlencoded",
        "Authorization": authorization or basic(simulator.account_sid, simulator.auth_token),
    }
    with closing(HTTPConnection(urlsplit(simulator.url).netloc, timeout=TIMEOUT_S)) as connection:
        connection.request(method, path, body=body or None, headers=headers)
        answer = connection.getresponse()
        return Got(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read().decode())


def create(simulator: TwilioSimulator, **fields: Any) -> Got:
    """Create a message; a field of None is left out, From becomes a magic number unless it is given."""
    form = {"To": TO, "From": FROM, "Body": "Your parcel is here"} | fields
    given = {name: value for name, value in form.items() if value is not None}
    return ask(simulator, "POST", messages_path(simulator), body=urlencode(given, doseq=True))


def look_up(simulator: TwilioSimulator, sid: str) -> Got:
    return ask(simulator, "GET", messages_path(simulator).replace(".json", f"/{sid}.json"))


def list_messages(simulator: TwilioSimulator, **filters: Any) -> Got:
    return ask(simulator, "GET", f"{messages_path(simulator)}?{urlencode(filters)}")


def connected(simulator: TwilioSimulator) -> socket.socket:
    address = urlsplit(simulator.url)
    return socket.create_connection((address.hostname, address.port), timeout=TIMEOUT_S)


def create_bytes(
    simulator: TwilioSimulator, *, to: str = TO, body: str = "hello", extra: str = "", **fields: str
) -> bytes:
    form = urlencode({"To": to, "From": FROM, "Body": body} | fields).encode()
    head = (
        f"POST {messages_path(simulator)} HTTP/1.1\r\nHost: localhost\r\n{extra}"
        f"Authorization: {basic(simulator.account_sid, simulator.auth_token)}\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(form)}\r\n\r\n"
    )
    return head.encode() + form


def refuses(simulator: TwilioSimulator) -> bool:
    try:
        connected(simulator).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # it came while the port was being closed
        return False
    return False


def eventually(condition: Callable[[], bool], *, timeout_s: float = 10.0) -> bool:
    """Ask again and again, where nothing tells when the answer changes."""
    until_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > until_s:
            return False
        time.sleep(0.01)
    return True


def bytes_of_create(simulator: TwilioSimulator) -> bytes:
    """Return every byte that a create is answered with, until the connection ends; an RST raises."""
    with closing(connected(simulator)) as connection:
        connection.sendall(create_bytes(simulator, extra="Connection: close\r\n"))
        answer = b""
        while chunk := connection.recv(65_536):
            answer += chunk
        return answer
