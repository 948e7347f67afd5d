"""A Celery broker in a folder that a worker and its producers can trust: nothing to install, for demos and tests.

kombu's own ``filesystem://`` opens a message's file under its final name and then fills it, so a worker that looks in
between reads an empty file and ends with a JSONDecodeError (kombu 5.7.0: in about every third run of some hundred
messages). Here a message appears whole. Everything else is kombu's: one machine, and a worker that is killed loses the
tasks that it holds.

>>> from smsretry.testing.folder_broker import folder_broker
>>> app.conf.update(folder_broker("/var/tmp/queue"))
"""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any, Final

from kombu.transport import TRANSPORT_ALIASES, filesystem
from kombu.utils.json import dumps

SCHEME: Final = "folder"


class Channel(filesystem.Channel):
    """Put messages into the folder by renaming them, which shows them whole."""

    # kombu's own classes disagree about this signature.
    def _put(self, queue: str, payload: Any, **_: Any) -> None:  # type: ignore[override]
        folder = Path(self.data_folder_out)
        name = f"{time.monotonic_ns() // 1_000_000}_{uuid.uuid4()}.{queue}.msg"  # kombu reads them in this order
        partial = folder / f".{name}"
        partial.write_text(dumps(payload), "utf-8")
        partial.replace(folder / name)


class Transport(filesystem.Transport):
    """Be kombu's transport for folders, with the channel above."""

    Channel = Channel


def folder_broker(folder: str | Path) -> dict[str, Any]:
    """Return the Celery settings of a broker in ``folder``, which is made where it is missing."""
    place = Path(folder).resolve()
    place.mkdir(parents=True, exist_ok=True)
    TRANSPORT_ALIASES[SCHEME] = f"{__name__}:Transport"
    options = {"data_folder_in": str(place), "data_folder_out": str(place), "control_folder": str(place)}
    return {"broker_url": f"{SCHEME}://", "broker_transport_options": {**options, "polling_interval": 0.1}}
