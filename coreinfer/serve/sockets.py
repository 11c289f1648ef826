"""Where a server listens; taken before anything large is loaded."""

import socket

from coreinfer.errors import CoreInferError, in_words
from coreinfer.serve.limits import LOOPBACK


def bound(host: str, port: int, key: str | None) -> socket.socket:
    """A socket on which clients may wait already.

    Raises:
        CoreInferError: the port is taken, the host is not this machine's, or others could reach it without a key.
    """
    if key is None and host not in LOOPBACK:
        raise CoreInferError(
            f"--host {host} lets others in and there is no key: give --api-key or COREINFER_API_KEY, or another --host"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # named, or asyncio sends as Nagle would
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
        made.listen(1024)
    except OSError as error:
        made.close()
        raise CoreInferError(
            f"cannot listen on {host}:{port} ({in_words(error)}): give another --port or --host"
        ) from error
    return made
