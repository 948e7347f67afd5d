"""Take Twilio's callbacks in a Django site.

This module holds the view and its route; put ``path("", include("examples.callbacks_django"))`` into the site's URLs.
As a site of one file it runs in the folder above this one (it needs ``pip install 'smsretry[twilio,sql]' django``)::

    export TWILIO_AUTH_TOKEN=... PUBLIC_URL=https://sms.example.com
    python -m examples.callbacks_django runserver --noreload 8000

Let ``https://sms.example.com/sms`` lead here, and give that URL to the sender as ``status_callback_url``.
"""

from __future__ import annotations

import os
import sys

from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from smsretry.callbacks.twilio import TwilioCallbacks
from smsretry.callbacks.web import asgi_path_and_query, wsgi_path_and_query
from smsretry.store import SQLStore

store = SQLStore(os.environ.get("SMSRETRY_DATABASE_URL", "sqlite:///sms.db"))
# What Twilio signs is this URL and what follows it: whatever a proxy makes of host, scheme and port does not matter.
callbacks = TwilioCallbacks(os.environ["TWILIO_AUTH_TOKEN"], os.environ["PUBLIC_URL"], store)


@csrf_exempt  # Twilio knows no token of the site's; its signature is checked instead
def sms(request: HttpRequest) -> HttpResponse:
    """Answer a delivery report, or a message that somebody sent to one of our numbers."""
    # The request's own path is decoded, and what is signed is not. A site knows which of the two it runs under.
    is_asgi = hasattr(request, "scope")
    asked = asgi_path_and_query(request.scope) if is_asgi else wsgi_path_and_query(request.environ)
    answer = callbacks.handle(request.method or "", asked, request.headers, request.body)
    return HttpResponse(answer.body, status=answer.status, headers=dict(answer.headers))


urlpatterns = [path("sms", sms)]

if __name__ == "__main__":
    settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"])
    execute_from_command_line(sys.argv)
