"""A hub that cannot be reached is found out at once, and its clients do not try for long."""

import socket
import threading
import time

import pytest

from search.model import ModelSource
from tasks.datasets import load_rows
from tasks.errors import InputError
from tasks.hub import hub, unreachable


@pytest.fixture
def endpoint(monkeypatch):
    """The hub at an address of this machine: nobody listens there, or somebody does."""
    for name in ("HF_HUB_OFFLINE", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)

    def at(listens):
        server = socket.create_server(("127.0.0.1", 0))
        port = server.getsockname()[1]
        if not listens:
            server.close()
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{port}")
        return server

    return at


def test_one_connection_says_whether_the_hub_is_there(endpoint):
    server = endpoint(listens=True)
    assert unreachable() is None
    server.close()
    assert unreachable() == "127.0.0.1 cannot be reached: Connection refused"


def test_a_name_server_that_does_not_answer_is_not_waited_for(endpoint, monkeypatch):
    endpoint(listens=False)
    over = threading.Event()
    monkeypatch.setattr("tasks.hub._addresses", lambda *_: [over.wait(60)] * 0)
    began = time.monotonic()
    assert unreachable(within_s=0.2) == "127.0.0.1 cannot be reached: no answer in 0.2 s"
    over.set()
    assert time.monotonic() - began < 5


def test_the_proxy_is_tried_where_there_is_one(endpoint, monkeypatch):
    endpoint(listens=False)
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        address = f"http://user:secret@127.0.0.1:{proxy.getsockname()[1]}"
        monkeypatch.setenv("http_proxy", address)
        assert unreachable() is None
    assert unreachable() == "the proxy 127.0.0.1 cannot be reached: Connection refused"


def test_clients_are_offline_within_alone(endpoint, monkeypatch):
    import datasets
    from huggingface_hub import is_offline_mode

    endpoint(listens=False)
    with hub() as why:
        assert "Connection refused" in why and is_offline_mode() and datasets.config.HF_HUB_OFFLINE
    assert not is_offline_mode() and not datasets.config.HF_HUB_OFFLINE
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")  # the user knows that it is there
    with hub() as why:
        assert why is None and not is_offline_mode()


@pytest.mark.parametrize(
    ("load", "what"),
    [
        (lambda: ModelSource("nobody/nothing").folder, "model 'nobody/nothing' is neither a local"),
        (lambda: load_rows("nobody/nothing:default:test"), "data set 'nobody/nothing:default"),
    ],
)
def test_a_missing_network_is_one_sentence_at_once(endpoint, monkeypatch, tmp_path, load, what):
    import datasets  # its import takes longer than the question  # noqa: F401

    endpoint(listens=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    began = time.monotonic()
    with pytest.raises(InputError) as found:
        load()
    assert time.monotonic() - began < 5
    said = str(found.value)
    assert what in said and "127.0.0.1 cannot be reached: Connection refused" in said
    assert "connect to the network, or give a " in said and "\n" not in said
