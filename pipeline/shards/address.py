"""Whether a Ray cluster can be there, before anything slow is done for it."""

import os
import re
import socket
from importlib.util import find_spec

from coreinfer.errors import CoreInferError

KNOCK = 5.0  # seconds in which an address must answer
SETTINGS = 4  # a frame's type (RFC 9113)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, SETTINGS, 0, 0, 0, 0, 0])


def check_ray(address: str | None) -> None:
    """Refuse at once what cannot work: no Ray here, or nobody at the address.

    Raises:
        CoreInferError: that.
    """
    if find_spec("ray") is None:
        raise CoreInferError("--engine ray needs Ray, which is not installed: pip install 'coreinfer[ray]'")
    if address in (None, "auto"):
        return
    if not (found := re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^\s:/\[\]]+):([0-9]{1,5})", str(address))):
        raise CoreInferError(
            f"--address is {address!r}: give HOST:PORT of the Ray cluster's head, such as 10.0.0.7:6379"
        )
    try:
        _knock(found[1].strip("[]"), int(found[2]))
    except (OSError, OverflowError) as error:
        raise CoreInferError(
            f"nobody answers at --address {address} ({error}): check it, start Ray there with `ray start --head`, or "
            "leave it out for a Ray on this machine"
        ) from error


def _knock(host: str, port: int) -> None:
    """Begin to speak HTTP/2 there, as Ray does: Ray itself would try for minutes.

    Raises:
        OSError: nobody answers in it.
        OverflowError: no such port.
    """
    with socket.create_connection((host, port), KNOCK) as line:
        if os.environ.get("RAY_USE_TLS", "0") in ("0", ""):
            line.sendall(PREFACE)
            answer = line.recv(9)  # the head of a frame: three bytes of length, then its type
            if len(answer) < 4 or answer[3] != SETTINGS:
                raise OSError("what listens there is no Ray")
