"""Serve an example that takes callbacks: python -m tests.examples.callback_server EXAMPLE. Its port is printed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, cast

from tests.callbacks.serving import served_by_asgi, served_by_werkzeug, served_by_wsgi


def flask() -> AbstractContextManager[int]:
    from examples.callbacks_flask import app

    return served_by_werkzeug(app)


def flask_elsewhere() -> AbstractContextManager[int]:
    from examples.callbacks_flask import app

    return served_by_wsgi(app)


def fastapi() -> AbstractContextManager[int]:
    from examples.callbacks_fastapi import app

    return served_by_asgi(app)


def set_up_django() -> None:
    import django
    from django.conf import settings

    cast("Any", settings).configure(ROOT_URLCONF="examples.callbacks_django", ALLOWED_HOSTS=["*"], LOGGING_CONFIG=None)
    django.setup()


def django_wsgi() -> AbstractContextManager[int]:
    from django.core.wsgi import get_wsgi_application

    set_up_django()
    return served_by_wsgi(get_wsgi_application())


def django_asgi() -> AbstractContextManager[int]:
    from django.core.asgi import get_asgi_application

    set_up_django()
    return served_by_asgi(get_asgi_application(), lifespan="off")


EXAMPLES: dict[str, Callable[[], AbstractContextManager[int]]] = {
    "flask": flask,
    "flask over wsgiref": flask_elsewhere,
    "fastapi": fastapi,
    "django over WSGI": django_wsgi,
    "django over ASGI": django_asgi,
}

if __name__ == "__main__":
    with EXAMPLES[sys.argv[1]]() as port:
        print(port, flush=True)
        sys.stdin.read()  # until whoever began it closes it
