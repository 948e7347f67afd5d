"""Take Twilio's callbacks in a FastAPI application; in Starlette it is the same.

Run it in the folder above this one (it needs ``pip install 'smsretry[twilio,sql]' fastapi uvicorn``)::

    export TWILIO_AUTH_TOKEN=... PUBLIC_URL=https://sms.example.com
    uvicorn examples.callbacks_fastapi:app --port 8000

Let ``https://sms.example.com/sms`` lead here, and give that URL to the sender as ``status_callback_url``.
"""

from __future__ import annotations

import os

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool

from smsretry.callbacks.twilio import TwilioCallbacks
from smsretry.callbacks.web import asgi_path_and_query
from smsretry.store import SQLStore

store = SQLStore(os.environ.get("SMSRETRY_DATABASE_URL", "sqlite:///sms.db"))
# What Twilio signs is this URL and what follows it: whatever a proxy makes of host, scheme and port does not matter.
callbacks = TwilioCallbacks(os.environ["TWILIO_AUTH_TOKEN"], os.environ["PUBLIC_URL"], store)

app = FastAPI()


@app.post("/sms")
async def sms(request: Request) -> Response:
    """Answer a delivery report, or a message that somebody sent to one of our numbers."""
    asked = asgi_path_and_query(request.scope)  # request.url is put together anew, and what is signed is not
    body = await request.body()  # as it came: no Form() parameters here
    answer = await run_in_threadpool(callbacks.handle, request.method, asked, request.headers, body)
    return Response(answer.body, answer.status, dict(answer.headers))
