"""Entries that authors' own code keeps of captured heads, for methods that kvpress does not have.

  .deps/golden/bin/python scripts/golden/authors_picks.py R-KV > harness/testing/golden/authors_picks.json

R-KV: a checkout of github.com/Zefan-Cai/R-KV (made with rkv/utils.py of cc5a9b9b95964ae75cb12473ba6a9091bae2d4ac). Heads and order as in
kvpress_picks.py; no entry is the window's own.
"""
import importlib.util
import json
import sys

sys.path.pop(0)  # statistics.py beside this file hides the standard library's

import safetensors.torch
import torch

HEADS = "harness/testing/golden/captured_heads.safetensors"


def load(path):
    spec = importlib.util.spec_from_file_location("authors", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def r_kv(code, keys, window, mix):
    """R1KV._compute_scores, where all entries are in front of the window."""
    weights = torch.softmax(code.compute_attention_scores(window, keys), dim=-1, dtype=torch.float32).mean(dim=-2)
    importance = torch.nn.functional.max_pool1d(weights, kernel_size=7, padding=3, stride=1)
    return importance * mix - code.cal_similarity(keys) * (1 - mix)


def main():
    code = load(sys.argv[1] + "/rkv/utils.py")
    heads = safetensors.torch.load_file(HEADS)
    cases = []
    for head in ["L2H0", "L14H1", "L27H2"]:
        keys, queries = (heads[f"{head}.{x}"].float()[None, None] for x in "KQ")
        for kept in [0.5, 0.2, 0.05]:
            t = int(keys.shape[2] * kept + 1e-9)
            for mix in [0.1, 0.9]:
                scores = r_kv(code, keys, queries[:, :, -8:], mix).flatten()
                cases.append({"method": "r_kv", "options": {"lambda": mix}, "captured": head, "t": t, "queries": queries.shape[2],
                              "indices": torch.sort(scores, stable=True, descending=True).indices[:t].sort().values.tolist()})
    text = ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases)
    print('{"made_by": "scripts/golden/authors_picks.py", "versions": {"torch": "%s"}, "cases": [\n%s\n]}' % (torch.__version__, text))


if __name__ == "__main__":
    main()
