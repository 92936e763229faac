"""Runs plain handlers, each in a thread that runs nothing else meanwhile.

No pool of a fixed size: a handler that hangs would keep a place of it, and later ones would never begin.
"""

import contextvars
import queue
import threading
import time
from collections.abc import Sequence

from escala.tasks.context import current_job
from escala.tasks.worker.attempt import Attempt, Outcome, raised, succeeded
from escala.tasks.worker.handlers.event_loop import Deliver


class HandlerThreads:
    def __init__(self, deliver: Deliver) -> None:
        self._deliver = deliver
        self._idle: list[queue.SimpleQueue[Attempt]] = []
        """The inboxes of threads that wait for an attempt."""
        self._turn = threading.Lock()

    def start(self, attempts: Sequence[Attempt]) -> None:
        """Begin attempts. Their outcomes are delivered."""
        for attempt in attempts:
            with self._turn:
                inbox = self._idle.pop() if self._idle else None
            if inbox is not None:
                inbox.put(attempt)
            else:
                threading.Thread(target=self._work, args=[attempt], name="handler", daemon=True).start()

    def _work(self, attempt: Attempt) -> None:
        inbox: queue.SimpleQueue[Attempt] = queue.SimpleQueue()
        while True:
            outcome = contextvars.Context().run(_attempt, attempt)
            with self._turn:
                self._idle.append(inbox)
            self._deliver(attempt, outcome)
            attempt = inbox.get()


def _attempt(attempt: Attempt) -> Outcome:
    current_job.set(attempt.context)
    try:
        arguments = attempt.arguments()
        attempt.began = time.monotonic()
        return succeeded(attempt, attempt.task.function(**arguments))
    except BaseException as error:  # SystemExit would end the thread, and KeyboardInterrupt is no wish of a user here
        return raised(attempt, error)
