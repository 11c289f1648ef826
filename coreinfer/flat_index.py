"""``index.faiss``, byte by byte, without FAISS: what was written for other readers must hold these centroids.

Our own index is made from ``clusters.parquet`` anew, so that no byte of the file is ever believed; but whoever reads
the file with FAISS believes all of it, its counts too.
"""

import struct

import numpy as np
from numpy.typing import NDArray

from coreinfer.own_files import Content

HEAD = struct.Struct("<4siqqq?iQ")  # kind, d, K, two unused words, trained, metric, floats that follow
KIND, INNER_PRODUCT = b"IxFI", 0


def check_index(content: Content, centroids: NDArray[np.float32]) -> None:
    """
    Raises:
        ValueError: it is no flat inner-product index over exactly these unit vectors (K, d).
    """
    (name, raw), wanted = content, HEAD.size + centroids.nbytes
    if len(raw) != wanted:
        raise ValueError(f"{name} has {len(raw)} bytes, an index of {len(centroids)} centroids has {wanted}")
    kind, d, count, _, _, trained, metric, floats = HEAD.unpack_from(raw)
    found = (kind, d, count, trained, metric, floats)
    if found != (KIND, centroids.shape[1], len(centroids), True, INNER_PRODUCT, centroids.size):
        raise ValueError(f"{name} is no flat inner-product index of {centroids.shape}: its header says {found}")
    if raw[HEAD.size :] != np.ascontiguousarray(centroids, "<f4").tobytes():
        raise ValueError(f"{name} holds other centroids than clusters.parquet")
