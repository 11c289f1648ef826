"""``index.faiss``, byte by byte, without FAISS: what was written for other readers must hold these centroids.

Our own index is made from ``clusters.parquet`` anew, so that no byte of the file is ever believed; but whoever reads
the file with FAISS believes all of it, its counts too.
"""

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

HEAD = struct.Struct("<4siqqq?iQ")  # kind, d, K, two unused words, trained, metric, floats that follow
KIND, INNER_PRODUCT = b"IxFI", 0


def check_index(path: Path, centroids: NDArray[np.float32]) -> None:
    """
    Raises:
        ValueError: it is no flat inner-product index over exactly these unit vectors (K, d).
        OSError: it cannot be read.
    """
    wanted = HEAD.size + centroids.nbytes
    with path.open("rb") as file:
        raw = file.read(wanted + 1)
    if len(raw) != wanted:
        size = f"{len(raw)} bytes" if len(raw) < wanted else f"more than {wanted} bytes"
        raise ValueError(f"{path.name} has {size}, an index of {len(centroids)} centroids has {wanted}")
    kind, d, count, _, _, trained, metric, floats = HEAD.unpack_from(raw)
    found = (kind, d, count, trained, metric, floats)
    if found != (KIND, centroids.shape[1], len(centroids), True, INNER_PRODUCT, centroids.size):
        raise ValueError(f"{path.name} is no flat inner-product index of {centroids.shape}: its header says {found}")
    if raw[HEAD.size :] != np.ascontiguousarray(centroids, "<f4").tobytes():
        raise ValueError(f"{path.name} holds other centroids than clusters.parquet")
