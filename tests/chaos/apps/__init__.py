"""The Celery applications under test: each module is what a shop has in its own tasks module."""
