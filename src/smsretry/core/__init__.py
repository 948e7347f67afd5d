"""Decide what a failed text message means and what to do next: values in, values out.

Nothing here reads a clock, sleeps, draws a random number, opens a socket or imports a third-party module.
"""
