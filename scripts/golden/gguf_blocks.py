"""Golden values of GGUF dequantisation: random blocks of every format, and rows of the real file, decoded by the public `gguf` package.

    python scripts/golden/gguf_blocks.py models/smollm2-135m-instruct.gguf > harness/testing/golden/gguf_blocks.json
"""
import importlib.metadata
import json
import sys

import numpy
from gguf import GGUFReader
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType as T
from gguf.quants import dequantize

TYPES = [T.F32, T.F16, T.BF16, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.Q2_K, T.Q3_K, T.Q4_K, T.Q5_K, T.Q6_K,
         T.IQ4_NL, T.IQ4_XS]
# Byte offsets of the float16 numbers in a block: random bits there would be infinities and subnormals for no gain.
HALVES = {T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0], T.Q2_K: [80, 82], T.Q3_K: [108],
          T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208], T.IQ4_NL: [0], T.IQ4_XS: [0]}


def random_blocks(random, kind, n_blocks):
    values, n_bytes = GGML_QUANT_SIZES[kind]
    if kind == T.F32:
        return random.standard_normal(n_blocks).astype("<f4").view(numpy.uint8)
    if kind == T.F16:
        return random.standard_normal(n_blocks).astype("<f2").view(numpy.uint8)
    if kind == T.BF16:
        bits = random.standard_normal(n_blocks).astype("<f4").view("<u4") >> 16
        return bits.astype("<u2").view(numpy.uint8)
    blocks = random.integers(0, 256, (n_blocks, n_bytes), dtype=numpy.uint8)
    for offset in HALVES[kind]:
        blocks[:, offset:offset + 2] = random.standard_normal((n_blocks, 1)).astype("<f2").view(numpy.uint8)
    return blocks.reshape(-1)


def main():
    random = numpy.random.default_rng(20240501)
    blocks = []
    for kind in TYPES:
        values, _ = GGML_QUANT_SIZES[kind]
        data = random_blocks(random, kind, 2 if values > 1 else 12)
        decoded = dequantize(data, kind).astype("<f4")
        blocks.append({"type": int(kind), "name": kind.name, "bytes": data.tobytes().hex(),
                       "float32_bits": decoded.tobytes().hex()})
    rows = []
    reader = GGUFReader(sys.argv[1])
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    for name, row in [("token_embd.weight", 0), ("token_embd.weight", 49151), ("blk.0.attn_q.weight", 5),
                      ("blk.17.ffn_down.weight", 575), ("output_norm.weight", 0)]:
        tensor = tensors[name]
        decoded = numpy.atleast_2d(dequantize(tensor.data, tensor.tensor_type)).astype("<f4")
        rows.append({"tensor": name, "type": tensor.tensor_type.name, "row": row,
                     "shape": [int(n) for n in reversed(tensor.shape)], "float32_bits": decoded[row].tobytes().hex()})
    versions = {name: importlib.metadata.version(name) for name in ("gguf", "numpy")}
    out = {"made_by": "python scripts/golden/gguf_blocks.py models/smollm2-135m-instruct.gguf", "versions": versions,
           "blocks": blocks, "rows": rows}
    json.dump(out, sys.stdout, indent=0)
    print()


main()
