"""A worker that ends with its driver, whatever it is busy with.

Ray tells a worker of its driver's death by messages that wait for the end of what it computes.
"""

from __future__ import annotations

import os
import threading
import time

from search.study.lock import Holder

POLL_S = 1.0
NAME = "driver watch"


def end_with(driver: Holder) -> None:
    """Let this process end when `driver` does, if that runs on the same machine.

    It is asked once a second, by a thread; another machine's driver is Ray's own affair.
    """
    if not driver.is_neighbour or any(one.name == NAME for one in threading.enumerate()):
        return
    threading.Thread(target=_watch, args=(driver,), daemon=True, name=NAME).start()


def _watch(driver: Holder) -> None:
    while not driver.is_gone:
        time.sleep(POLL_S)
    os._exit(1)  # nothing is to be tidied: files appear whole or not at all
