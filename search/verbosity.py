"""How much the program says: ``-q`` results and errors alone, ``-v`` what happens in detail.

Every command takes both options; `Program` adds them.
"""

from __future__ import annotations

import inspect
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum
from functools import wraps
from typing import Annotated, Any

import typer

from tasks.errors import InputError

OWN = ("laser_search", "cluster", "search", "tasks")
LIBRARIES = ("datasets", "huggingface_hub", "optuna", "ray", "transformers")
SETTINGS = {
    "DATASETS_VERBOSITY": "info",
    "HF_HUB_VERBOSITY": "info",
    "TRANSFORMERS_VERBOSITY": "info",
}
"""What makes these libraries talk; they read it when they are imported."""

QuietFlag = Annotated[bool, typer.Option("--quiet", "-q", help="Print only the result and errors.")]
VerboseFlag = Annotated[
    bool,
    typer.Option("--verbose", "-v", help="Print debug messages, Ray's and transformers' too."),
]


class Verbosity(Enum):
    """How much is said."""

    QUIET = "quiet"
    USUAL = "usual"
    VERBOSE = "verbose"


_current: ContextVar[Verbosity] = ContextVar("verbosity", default=Verbosity.USUAL)


def current() -> Verbosity:
    """How much the command that runs says."""
    return _current.get()


@contextmanager
def speaking(verbosity: Verbosity) -> Iterator[None]:
    """Within, this program and its libraries say so much on standard error."""
    token = _current.set(verbosity)
    try:
        with _LOGS[verbosity]():
            yield
    finally:
        _current.reset(token)


@contextmanager
def _hushed() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def _usual() -> Iterator[None]:
    yield


@contextmanager
def _talking() -> Iterator[None]:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    wanted = dict.fromkeys(OWN, logging.DEBUG) | dict.fromkeys(LIBRARIES, logging.INFO)
    loggers = [(logging.getLogger(name), level) for name, level in wanted.items()]
    before = [logger.level for logger, _ in loggers]
    added = {name: value for name, value in SETTINGS.items() if name not in os.environ}
    os.environ.update(added)
    logging.root.addHandler(handler)
    for logger, level in loggers:
        logger.setLevel(level)
    try:
        yield
    finally:
        logging.root.removeHandler(handler)
        for (logger, _), level in zip(loggers, before, strict=True):
            logger.setLevel(level)
        for name in added:
            os.environ.pop(name, None)


_LOGS = {
    Verbosity.QUIET: _hushed,
    Verbosity.USUAL: _usual,
    Verbosity.VERBOSE: _talking,
}


class Program(typer.Typer):
    """A Typer whose commands all take ``-q`` and ``-v``."""

    def command(self, *arguments: Any, **options: Any) -> Callable[[Any], Any]:
        """As Typer's."""
        register = super().command(*arguments, **options)

        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            register(_with_flags(function))
            return function

        return decorate


def _with_flags(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with the two options beside its own."""

    @wraps(function)
    def command(*arguments: Any, quiet: bool, verbose: bool, **options: Any) -> Any:
        with speaking(_chosen(quiet, verbose)):
            return function(*arguments, **options)

    signature = inspect.signature(function, eval_str=True)
    flags = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=flag)
        for name, flag in (("quiet", QuietFlag), ("verbose", VerboseFlag))
    ]
    own = list(signature.parameters.values())
    command.__signature__ = signature.replace(parameters=[*own, *flags])  # type: ignore[attr-defined]
    command.__annotations__ = {
        **{one.name: one.annotation for one in own},
        **{one.name: one.annotation for one in flags},
        "return": signature.return_annotation,
    }
    del command.__wrapped__  # Typer would look there for names and their types
    return command


def _chosen(quiet: bool, verbose: bool) -> Verbosity:
    if quiet and verbose:
        raise InputError("--quiet and --verbose contradict each other; use only one of them")
    if quiet:
        return Verbosity.QUIET
    return Verbosity.VERBOSE if verbose else Verbosity.USUAL
