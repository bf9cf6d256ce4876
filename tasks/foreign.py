"""The boundary to libraries that read what a user gave."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from tasks.errors import InputError

_LONGEST = 300
_PANIC = "PanicException"
"""What Rust's libraries raise on a bug of theirs; it is no Exception to Python."""


@contextmanager
def reading(what: str, remedy: str, fails: str = "cannot be read") -> Iterator[None]:
    """Turn whatever a library raises within into one sentence: what, its own words, the remedy.

    Keep nothing but the library's call within: a fault of our own is to show its traceback. Memory
    that does not suffice is no fault of what is read, and passes.
    """
    try:
        yield
    except (InputError, MemoryError):
        raise
    except BaseException as error:
        kind = type(error).__name__
        if kind == "OutOfMemoryError" or not (isinstance(error, Exception) or kind == _PANIC):
            raise
        raise InputError(f"{what} {fails}: {words_of(error)}; {remedy}") from error


def words_of(error: BaseException) -> str:
    """What an error says, on one line and not too long; its kind too where it says little."""
    said = " ".join(str(error).split()).rstrip(".;:")
    if isinstance(error, RecursionError):
        said = "it is nested too deeply"
    elif len(said) < 20 or isinstance(error, KeyError | AttributeError | TypeError):
        said = f"{type(error).__name__}: {said}"
    return said if len(said) <= _LONGEST else f"{said[:_LONGEST]}..."


@contextmanager
def quietly(*names: str) -> Iterator[None]:
    """Keep libraries from warning within, such as of every retry; what fails in the end is said."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
