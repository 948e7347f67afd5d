"""Kill and freeze workers at random, and count the texts that come to the provider's socket.

``python -m tests.chaos`` (or ``make chaos``) gives the same load to three programs and prints for each how many texts
were lost and doubled:

=================== ================================================================================================
``smsretry``        this library: a task of `smsretry.adapters.celery` with a journal, and its recovery running
``celery-autoretry`` the task that people write: ``autoretry_for=(Exception,)``, ``retry_backoff=True``, ``acks_late=True``
``celery-tenacity`` the same client under tenacity's ``@retry``, inside a task with ``acks_late=True``
=================== ================================================================================================

Each is a real Celery application with prefork workers. A seeded `random.Random` kills (SIGKILL) and freezes (SIGSTOP)
pool children and whole workers several times a second; a dead worker is started anew, as a supervisor would do it. The
provider is `smsretry.testing.TwilioSimulator`: it says 429 and 5xx, loses answers before and after it took a text, takes
some texts late, and lists them late. Both settle times are set above its lags, so that the promise of the journal holds.

How it is counted
    Texts are counted at the simulator's socket, never by what a program says of itself.

    *lost*
        A message without a text, unless its program called it refused for a permanent reason (nothing in this load is) or
        says loudly that its outcome is unknown. A task that ended as a failure, its retries used up, has lost its text:
        no message of this load meets more than two faults, and each program tries four times. A message for which the run
        ended before it did is lost as well, with or without a text, where its program keeps account of that.
    *doubled*
        Every text of a message beyond its first.
    *unknown*
        Messages that their program reports as "nobody can say".
    *retries*
        POSTs beyond the first of each message.

What is done to be fair
    The two other programs get ``reject_on_worker_lost=True`` (without it Celery drops the task of a killed child), a
    timeout for their client (Twilio's has none), and a queue that hands out what a dead worker held after 15 seconds
    (an hour by default). tenacity's waits begin at 0.2 s, as those of our own policy do here.
"""
