"""Kill and freeze workers at random, and count the texts that come to the provider's socket.

``python -m tests.chaos`` (or ``make chaos``) gives the same load to three programs and prints for each how many texts
were lost and doubled:

==================== =========================================================================================
``smsretry``         this library: a task of `smsretry.adapters.celery` with a journal, and ``recover`` running
``celery-autoretry`` the task that people write: ``autoretry_for=(Exception,)``, ``retry_backoff=True``,
                     ``acks_late=True``, around the official client of Twilio
``celery-tenacity``  the same client under tenacity's ``@retry``, in a task with ``acks_late=True``
==================== =========================================================================================

Each is a real Celery application. A seeded `random.Random` kills (SIGKILL) and freezes (SIGSTOP) the processes of the
pools and whole workers several times a second; a dead worker is started anew, as a supervisor would do it. The provider
is `smsretry.testing.TwilioSimulator`: it says 429 and 5xx, loses answers before and after it took a text, takes some
texts late, and lists all of them late. Both settle times are above its lags and the longest freeze together, as the
promise of the journal asks for; ``--settle-after 1`` breaks that condition, and shows what it is for.

There are two backends. ``redis+postgresql`` kills each server once in the middle and starts it anew; its workers have
a prefork pool. ``embedded`` is a folder and a SQLite file; its workers are single processes, killed as a whole, and
with one of them its broker loses what it held.

The messages are queued little by little, as a campaign is; ours are planned in the journal before. `recover` runs in a
thread of each prefork worker, and over the embedded parts as a process, which is killed and frozen like the workers.

How it is counted
    Texts are counted at the simulator's socket, never by what a program says of itself.

    *lost*
        Messages without a text, unless their program calls them refused for a permanent reason (nothing in this load
        is) or says that their outcome is unknown. A task that ended as a failure, its retries used up, has lost its
        text: no message of this load meets more than two faults, and every program tries four times at least. Where a
        program keeps account of its messages, those that had not ended when the run's time was up are lost too, with
        or without a text.
    *doubled*
        Texts of a message beyond its first.
    *unknown*
        Messages of which their program says that nobody can tell.
    *retries*
        POSTs of a message beyond its first.

What was done to be fair
    The two other programs get ``reject_on_worker_lost=True`` (without it Celery drops the task of a killed child), a
    timeout for their client (Twilio's has none), and a queue that hands out after 15 seconds what a dead worker held
    (after an hour by default). tenacity's waits begin at 0.2 s, as those of our own policy do here. A kill uses up no
    try of theirs, since Celery does not count what it hands out again; for the journal a killed attempt may have sent,
    so our own policy gets more than three retries.
"""
