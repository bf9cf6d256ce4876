"""Whether the Hugging Face hub can be reached, found out before its clients try for half a minute.

Without a network they repeat each request six times. Here one connection is tried, and where there
is none they are told to use what they have on this machine.
"""

from __future__ import annotations

import os
import queue
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

WITHIN_S = 5.0
"""How long a connection may take: three tries of TCP, whose first packet may be lost."""

AGAIN_S = 0.5

OFFLINE = "HF_HUB_OFFLINE"
"""The hub's own setting. Where it is set to anything, also to 0, nothing is tried here."""


@contextmanager
def hub() -> Iterator[str | None]:
    """Within, the hub's clients ask it if it can be reached, else only what they have stored.

    Gives None where it can, else why not, for people.
    """
    why = None if os.environ.get(OFFLINE) else unreachable()
    if why is None:
        yield None
        return
    import huggingface_hub.constants

    libraries: list[Any] = [huggingface_hub.constants]
    if "datasets" in sys.modules:
        import datasets

        libraries.append(datasets.config)
    before = [library.HF_HUB_OFFLINE for library in libraries]
    for library in libraries:
        library.HF_HUB_OFFLINE = True
    try:
        yield why
    finally:
        for library, value in zip(libraries, before, strict=True):
            library.HF_HUB_OFFLINE = value


def unreachable(within_s: float = WITHIN_S) -> str | None:
    """Why no connection to the hub, or to the proxy before it, can be made; None if one can."""
    from huggingface_hub import constants

    url = urlsplit(constants.ENDPOINT)
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if proxy and not proxy_bypass(url.hostname or ""):
        where, what = urlsplit(proxy if "://" in proxy else f"http://{proxy}"), "the proxy "
    else:
        where, what = url, ""
    if not where.hostname:
        return None  # its clients know better what such an address means
    port = where.port or (443 if where.scheme == "https" else 80)
    error = _connect(where.hostname, port, within_s)
    return None if error is None else f"{what}{where.hostname} cannot be reached: {error}"


def _connect(host: str, port: int, within_s: float) -> str | None:
    """Try all addresses of a host at once; None if one answers, else why none does.

    In threads that nobody waits for: a name server that is gone holds its callers for longer.
    """
    answers: queue.Queue[str | None] = queue.Queue()
    refusals: list[str] = []

    def knock(family: int, address: Any) -> None:
        try:
            with socket.socket(family, socket.SOCK_STREAM) as one:
                one.settimeout(within_s)
                one.connect(address)
            answers.put(None)
        except OSError as error:
            refusals.append(error.strerror or str(error))

    def try_all() -> None:
        try:
            found = _addresses(host, port)
        except OSError as error:
            answers.put(error.strerror or str(error))
            return
        threads = [Thread(target=knock, args=(one[0], one[4]), daemon=True) for one in found]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        answers.put(refusals[0] if refusals else None)

    Thread(target=try_all, daemon=True).start()
    try:
        return answers.get(timeout=within_s)
    except queue.Empty:
        return f"no answer in {within_s:g} s"


def _addresses(host: str, port: int) -> list[Any]:
    """What a host's name stands for; asked twice, as the first question may be lost."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno != socket.EAI_AGAIN:
            raise
    time.sleep(AGAIN_S)
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
