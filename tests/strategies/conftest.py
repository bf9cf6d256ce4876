from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import pytest

from laser_search.testing.strategies import (
    BEST,
    begin,
    end,
    make_setting,
    score,
)
from laser_search.testing.strategies import (
    new_history as history_of,
)
from laser_search.testing.strategies import (
    run as run_of,
)
from search.strategies.base import History, Setting, Strategy


@pytest.fixture
def land() -> SimpleNamespace:
    """The made-up landscape: its best cuts, and a composition's score."""
    return SimpleNamespace(best={f"{m}={rho}" for m, rho in BEST.items()}, score=score)


@pytest.fixture
def flight() -> SimpleNamespace:
    """Put a trial in flight, and what became of it."""
    return SimpleNamespace(begin=begin, end=end)


@pytest.fixture
def setting() -> Setting:
    """A space of eight matrices and five fractions, with a screen that half knows."""
    return make_setting()


@pytest.fixture
def new_history(setting: Setting) -> Callable[..., History]:
    """A history in which the unedited model is known."""
    return partial(history_of, setting)


@pytest.fixture
def run(setting: Setting) -> Callable[..., History]:
    """Search the landscape one trial at a time, or with several in flight."""

    def go(strategy: Strategy, *args: int, **options: int) -> History:
        return run_of(strategy, setting, *args, **options)

    return go
