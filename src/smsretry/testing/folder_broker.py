"""A broker that needs nothing but a folder: for a demo, a test or a first try, on one machine.

It is kombu's ``filesystem://``, but a message appears in the folder when it is whole. kombu's own transport opens the
file first and writes afterwards; a worker that looks in between reads half a message, loses it and stops (seen with
kombu 5.5 and 5.7: about one message in ten under a busy worker).

What a killed worker held is lost, as with kombu's own. Production wants a real broker.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from time import monotonic_ns
from typing import Any

from kombu.transport import filesystem
from kombu.utils.encoding import str_to_bytes
from kombu.utils.json import dumps


class Channel(filesystem.Channel):
    """Write a message beside the queue and move it in; names keep the order."""

    def _put(self, queue: str, payload: Any, **_: Any) -> None:  # type: ignore[override]  # kombu's two names for it
        folder = Path(self.data_folder_out)
        part = folder / f"{uuid.uuid4().hex}.part"
        part.write_bytes(str_to_bytes(dumps(payload)))
        part.rename(folder / f"{monotonic_ns():020}_{uuid.uuid4().hex}.{queue}.msg")


class Transport(filesystem.Transport):
    """Be kombu's transport of files with whole messages."""

    Channel = Channel


def folder_broker(folder: str | Path, *, polling_interval_s: float = 0.1) -> dict[str, Any]:
    """Return the Celery settings of a broker in ``folder``, which is made where it is missing.

    Use them as ``app.conf.update(folder_broker("queue"))``. An idle worker looks into the folder every
    ``polling_interval_s`` seconds. Keep the folder on the file system of the temporary directory: kombu reads a message
    by moving it there.
    """
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    folders = dict.fromkeys(("data_folder_in", "data_folder_out", "control_folder"), str(path))
    return {
        "broker_url": "filesystem://localhost",  # which kombu would warn that it takes by itself
        "broker_transport": f"{__name__}:Transport",
        "broker_transport_options": {**folders, "polling_interval": polling_interval_s},
    }
