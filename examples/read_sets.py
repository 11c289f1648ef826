"""Read one neuron set from a file that `coreinfer export --to numpy` wrote. Needs NumPy alone.

python read_sets.py sets.bits 3      # how many neurons cluster 3 keeps in each layer; -1 is the global set
"""

import hashlib
import struct
import sys

import numpy as np


def read_set(path, cluster):
    """Each layer's neurons, sorted int32 ids; the layout is specified in artifacts/FORMAT.md."""
    with open(path, "rb") as file:
        head = file.read(160)
        magic, version, layers, width, sets, _keep = struct.unpack("<8s4Id", head[:32])
        if (magic, version) != (b"CORESETS", 1):
            raise ValueError(f"{path} holds no neuron sets of version 1")
        table = file.read(36 * sets)
        if hashlib.sha256(head[:128] + table).digest() != head[128:]:
            raise ValueError(f"{path} was changed")
        rows = np.frombuffer(table, [("cluster", "<i4"), ("sha256", "V32")])
        at = np.flatnonzero(rows["cluster"] == cluster)
        if len(at) != 1:
            raise ValueError(f"{path} has no cluster {cluster}")
        row = (width + 7) // 8  # bytes of a layer
        file.seek(160 + 36 * sets + int(at[0]) * layers * row)
        bits = file.read(layers * row)
    if hashlib.sha256(bits).digest() != rows["sha256"][at[0]].tobytes():
        raise ValueError(f"cluster {cluster} of {path} was changed")
    packed = np.frombuffer(bits, np.uint8).reshape(layers, row)
    mask = np.unpackbits(packed, axis=1, count=width, bitorder="little").view(bool)
    return [np.flatnonzero(layer).astype(np.int32) for layer in mask]


if __name__ == "__main__":
    print([len(ids) for ids in read_set(sys.argv[1], int(sys.argv[2]))])
