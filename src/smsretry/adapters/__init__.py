"""Translate an `Outcome` into the words of a queue, one module per queue."""
