"""Work that Numba shares among its threads."""

from threading import Lock

TURN = Lock()  # one of Numba's ways to share work among threads serves one caller at a time
