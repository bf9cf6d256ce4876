"""A limit on the time of a trial: a worker that does not answer is killed, whatever it hangs in."""

from __future__ import annotations

import threading
import time
from typing import Any

import ray
from ray import tune

from cluster.privates import actor_of

POLL_S = 0.25


class Watchdog(tune.Callback):  # type: ignore[misc]  # Ray ships no types
    """Kills the worker of a trial that takes longer than `timeout_s`; None: never.

    The time counts from when the worker has loaded the model. Use it as a context manager.
    """

    def __init__(self, timeout_s: float | None) -> None:
        """Nothing is watched before the context is entered."""
        self._timeout_s = timeout_s
        self._running: dict[str, tuple[float, Any]] = {}
        self._overdue: set[str] = set()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="watchdog")

    def __enter__(self) -> Watchdog:
        """Begin to watch."""
        if self._timeout_s is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End watching."""
        self._ended.set()
        if self._timeout_s is not None:
            self._thread.join()

    def overdue(self, trial_id: str) -> str:
        """Why the worker of this Tune trial was killed, empty if it was not."""
        if trial_id not in self._overdue:
            return ""
        return f"no result after {self._timeout_s:g} s (cluster.trial_timeout_s)"

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The worker is there and begins."""
        self.begin(trial)

    def begin(self, trial: Any) -> None:
        """The worker of a Tune trial begins a job: its time counts from now."""
        if (actor := actor_of(trial)) is not None:
            with self._lock:
                self._running[trial.trial_id] = (time.monotonic(), actor)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """It ended by itself."""
        with self._lock:
            self._running.pop(trial.trial_id, None)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Its worker died."""
        self.on_trial_complete(iteration, trials, trial)

    def _watch(self) -> None:
        while not self._ended.wait(POLL_S):
            with self._lock:
                latest = time.monotonic() - (self._timeout_s or 0.0)
                late = [(k, actor) for k, (at, actor) in self._running.items() if at < latest]
                for trial_id, actor in late:
                    del self._running[trial_id]
                    self._overdue.add(trial_id)
                    ray.kill(actor)

    def __reduce__(self) -> tuple[Any, ...]:
        # Tune pickles its callbacks for a restore that is never used; a thread cannot travel.
        return (tune.Callback, ())
