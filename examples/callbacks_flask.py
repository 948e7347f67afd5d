"""Take Twilio's callbacks in a Flask application.

Run it in the folder above this one (it needs ``pip install 'smsretry[twilio,sql]' flask``)::

    export TWILIO_AUTH_TOKEN=... PUBLIC_URL=https://sms.example.com
    flask --app examples.callbacks_flask run --port 8000

Let ``https://sms.example.com/sms`` lead here, and give that URL to the sender as ``status_callback_url``.
"""

from __future__ import annotations

import os

from flask import Flask, Response, request

from smsretry.callbacks.twilio import TwilioCallbacks
from smsretry.callbacks.web import wsgi_path_and_query
from smsretry.store import SQLStore

store = SQLStore(os.environ.get("SMSRETRY_DATABASE_URL", "sqlite:///sms.db"))
# What Twilio signs is this URL and what follows it: whatever a proxy makes of host, scheme and port does not matter.
callbacks = TwilioCallbacks(os.environ["TWILIO_AUTH_TOKEN"], os.environ["PUBLIC_URL"], store)

app = Flask(__name__)
app.config["MAX_CONTENT_LENGTH"] = 65_536


@app.post("/sms")
def sms() -> Response:
    """Answer a delivery report, or a message that somebody sent to one of our numbers."""
    asked = wsgi_path_and_query(request.environ)  # request.url is decoded, and what is signed is not
    answer = callbacks.handle(request.method, asked, dict(request.headers), request.get_data())
    return Response(answer.body, answer.status, answer.headers)
