"""What is said of a Ray that is not there, before anything slow is done for it. Real clusters: ``make test-ray``."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from coreinfer import CoreInferError
from pipeline.shards import address
from pipeline.shards.address import check_ray
from pipeline.shards.ways import Ways


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "find_spec", lambda name: name)


def test_ray_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "find_spec", lambda name: None)
    with pytest.raises(CoreInferError, match=r"not installed: pip install 'coreinfer\[ray\]'"):
        Ways("ray").check()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def answered(listener: socket.socket, answer: bytes) -> str:
    """An address at which whoever connects gets this."""

    def serve() -> None:
        line, _ = listener.accept()
        with line:
            line.recv(100)
            line.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    return f"127.0.0.1:{listener.getsockname()[1]}"


def test_who_answers_as_ray_does_may(listener: socket.socket) -> None:
    check_ray(answered(listener, bytes([0, 0, 18, 4, 0, 0, 0, 0, 0])))


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
def test_who_does_not_is_refused(listener: socket.socket, answer: bytes) -> None:
    with pytest.raises(CoreInferError, match=r"^nobody answers at --address 127.0.0.1:\d+ \(.*no Ray\): .*ray start"):
        check_ray(answered(listener, answer))


def test_who_is_silent_is_waited_for_a_while(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "KNOCK", 0.3)
    begun = time.perf_counter()
    with pytest.raises(CoreInferError, match="timed out"):
        check_ray(f"127.0.0.1:{listener.getsockname()[1]}")
    assert time.perf_counter() - begun < 5


def test_nobody_is_there(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    listener.close()
    with pytest.raises(CoreInferError, match=f"nobody answers at --address localhost:{port} .*refused"):
        check_ray(f"localhost:{port}")


@pytest.mark.parametrize("wrong", ["ray://here:10001", "here", "here:", ":1", "", "a b:1"])
def test_addresses_that_are_none(wrong: str) -> None:
    with pytest.raises(CoreInferError, match=r"^--address is .*: give HOST:PORT"):
        check_ray(wrong)


def test_a_port_that_is_none() -> None:
    with pytest.raises(CoreInferError, match="nobody answers at --address localhost:99999"):
        check_ray("localhost:99999")
