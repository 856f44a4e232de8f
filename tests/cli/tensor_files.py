"""Safetensors files for the tests of the program, which may not need numpy. Standard library only."""

import array
import json
import math
import struct

DTYPES = {"F32": ("f", 4), "F64": ("d", 8), "BF16": ("H", 2), "I64": ("q", 8)}


class Tensor:
    def __init__(self, dtype, shape, raw):
        self.dtype, self.shape, self.raw = dtype, shape, raw

    @property
    def values(self):
        items = array.array(DTYPES[self.dtype][0], self.raw)
        if self.dtype == "BF16":  # the upper half of an F32
            items = array.array("f", array.array("I", [bits << 16 for bits in items]).tobytes())
        return items


def read(path):
    """(metadata, {name: Tensor}) of a safetensors file; everything in its header is checked."""
    with open(path, "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        data = f.read()
    metadata = header.pop("__metadata__", {})
    tensors, end = {}, 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, stop = entry["data_offsets"]
        assert begin == end and stop - begin == math.prod(entry["shape"]) * DTYPES[entry["dtype"]][1], (path, name)
        tensors[name] = Tensor(entry["dtype"], entry["shape"], data[begin:stop])
        end = stop
    assert end == len(data), path
    return metadata, tensors


def write(path, tensors):
    header, at = {}, 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [at, at + len(tensor.raw)]}
        at += len(tensor.raw)
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(tensor.raw for tensor in tensors.values()))
