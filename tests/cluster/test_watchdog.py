"""A worker that hangs in its trial is killed after the limit, and no other."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from cluster import watchdog
from cluster.watchdog import Watchdog


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(watchdog, "POLL_S", 0.01)
    monkeypatch.setattr(watchdog.ray, "kill", found.append)
    return found


def trial(name: str) -> SimpleNamespace:
    return SimpleNamespace(
        trial_id=name, temporary_state=SimpleNamespace(ray_actor=f"worker of {name}")
    )


def test_who_takes_longer_than_the_limit_is_killed(killed: list[str]) -> None:
    with Watchdog(0.2) as found:
        for name in ("ended", "died", "hangs"):
            found.on_trial_start(0, [], trial(name))
        found.on_trial_complete(0, [], trial("ended"))
        found.on_trial_error(0, [], trial("died"))
        deadline = time.monotonic() + 60
        while not killed:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert found.overdue("hangs") == "no result after 0.2 s (cluster.trial_timeout_s)"
        assert not found.overdue("ended") and not found.overdue("died")
        found.on_trial_error(0, [], trial("hangs"))
        time.sleep(0.3)
    assert killed == ["worker of hangs"]


def test_without_a_limit_nobody_is(killed: list[str]) -> None:
    with Watchdog(None) as found:
        found.on_trial_start(0, [], trial("hangs"))
        time.sleep(0.1)
    assert killed == [] and found.overdue("hangs") == ""
