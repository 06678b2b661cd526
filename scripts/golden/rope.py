"""Golden rotary frequencies and factors of every kind of scaling, by transformers' modeling_rope_utils.

    python scripts/golden/rope.py > harness/testing/golden/rope.json

A case holds the numbers of a config.json and what transformers makes of them: inverse frequencies in float32 (written so that they
are read back exactly) and the factor on cosine and sine. Dynamic scaling depends on the length of the text: `positions`.
"""
import importlib.metadata
import json
import sys

import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
CASES = [
    # name, head_dim, base, max_position_embeddings, rope_scaling, positions of the text
    ("plain, Llama 2", 128, 1e4, 4096, {"rope_type": "default"}, None),
    ("plain, Qwen2.5", 64, 1e6, 32768, {"rope_type": "default"}, None),
    ("linear", 128, 1e4, 16384, {"rope_type": "linear", "factor": 4.0}, None),
    ("linear, factor 2.5", 64, 1e4, 8192, {"rope_type": "linear", "factor": 2.5}, None),
    ("dynamic, short text", 128, 1e4, 4096, {"rope_type": "dynamic", "factor": 2.0}, 3000),
    ("dynamic, twice as long", 128, 1e4, 4096, {"rope_type": "dynamic", "factor": 2.0}, 8192),
    ("dynamic, between", 64, 1e4, 2048, {"rope_type": "dynamic", "factor": 8.0}, 5001),
    ("Llama 3.1", 128, 5e5, 131072, LLAMA3, None),
    ("Llama 3.2", 64, 5e5, 131072, LLAMA3 | {"factor": 32.0}, None),
    ("llama3, other edges", 64, 1e4, 1024, LLAMA3 | {"factor": 4.0, "low_freq_factor": 2.0, "high_freq_factor": 16.0,
                                                     "original_max_position_embeddings": 256}, None),
    ("yarn, Qwen2.5", 128, 1e6, 131072, YARN, None),
    ("yarn, own betas", 64, 1e4, 65536, YARN | {"factor": 16.0, "original_max_position_embeddings": 4096, "beta_fast": 20.0, "beta_slow": 2.0}, None),
    ("yarn, unrounded ramp", 64, 15e4, 131072, YARN | {"factor": 32.0, "original_max_position_embeddings": 4096, "truncate": False}, None),
    ("yarn, attention factor", 64, 1e4, 16384, YARN | {"original_max_position_embeddings": 4096, "attention_factor": 0.75}, None),
    ("yarn, two mscales", 64, 1e4, 163840, YARN | {"factor": 40.0, "original_max_position_embeddings": 4096, "mscale": 1.0, "mscale_all_dim": 0.707}, None),
    ("yarn, one mscale", 64, 1e4, 163840, YARN | {"factor": 40.0, "original_max_position_embeddings": 4096, "mscale": 0.707}, None),
    ("yarn, factor 1", 64, 1e4, 4096, YARN | {"factor": 1.0, "original_max_position_embeddings": 4096}, None),
    ("yarn, short original, ramp from 0", 16, 1e4, 256, YARN | {"original_max_position_embeddings": 64}, None),
    ("yarn, step", 64, 1e4, 256, YARN | {"original_max_position_embeddings": 4, "beta_fast": 32.0, "beta_slow": 16.0}, None),
]


def main():
    cases = []
    for name, head_dim, base, limit, scaling, positions in CASES:
        config = LlamaConfig(hidden_size=4 * head_dim, num_attention_heads=4, num_key_value_heads=4, head_dim=head_dim,
                             max_position_embeddings=limit, rope_parameters=dict(scaling) | {"rope_theta": base})
        if scaling["rope_type"] == "default":
            frequencies, factor = LlamaRotaryEmbedding.compute_default_rope_parameters(config)
        else:
            frequencies, factor = ROPE_INIT_FUNCTIONS[scaling["rope_type"]](config, "cpu", seq_len=positions)
        assert frequencies.dtype == torch.float32
        cases.append({"name": name, "head_dim": head_dim, "rope_theta": base, "max_position_embeddings": limit, "rope_scaling": scaling,
                      "positions": positions, "frequencies": [float(f"{x:.9g}") for x in frequencies.tolist()], "factor": factor})
    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers")}
    json.dump({"made_by": "python scripts/golden/rope.py", "versions": versions, "cases": cases}, sys.stdout)
    print()


main()
