"""Entries of a small model's cache to which tokens behind the text attend most: DapQ (arXiv:2603.11564), by transformers.

  .deps/golden/bin/python scripts/golden/dapq_picks.py > harness/testing/golden/dapq_picks.json

Typed anew from the paper, no code of the authors being public: the first `first` and the last 32 - `first` tokens of the text are read once
more behind it, at the positions that an answer will have, and the entries of largest attention, summed over these queries and the query
heads of a KV head, are kept. Weights, text and tokens are those of harness/testing/golden/tiny_models/cases.json; indices[layer][KV head].
"""
import json
import pathlib
import shutil
import sys
import tempfile

sys.path.pop(0)  # statistics.py beside this file hides the standard library's

import torch
import transformers

FOLDER = pathlib.Path("harness/testing/golden/tiny_models")
WINDOW = 32


def load(case):
    with tempfile.TemporaryDirectory() as folder:
        for inside, stored in case["files"].items():
            shutil.copy(FOLDER / stored, pathlib.Path(folder) / inside)
        (pathlib.Path(folder) / "config.json").write_text(json.dumps(case["config"]))
        return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def attention(model, ids, first):
    """(layer, KV head, entry): summed over the window's queries and the group."""
    with torch.inference_mode():
        cache = model(torch.tensor([ids]), use_cache=True).past_key_values
        window = ids[:first] + ids[len(ids) - (WINDOW - first):]
        seen = model(torch.tensor([window]), past_key_values=cache, output_attentions=True).attentions
    heads = model.config.num_key_value_heads
    return torch.stack([a[0].double().view(heads, -1, WINDOW, len(ids) + WINDOW).sum((1, 2))[:, :len(ids)] for a in seen])


def main():
    golden = json.loads((FOLDER / "cases.json").read_text())
    cases, ids = [], golden["ids"]
    for case in golden["cases"]:
        if case["name"] not in ("llama", "qwen3"):
            continue
        model = load(case)
        for first in [4, 0, 16]:
            scores = attention(model, ids, first)
            for kept in [0.5, 0.2, 0.05]:
                t = int(len(ids) * kept + 1e-9)
                ranked = torch.sort(scores, stable=True, descending=True)
                gap = ((ranked.values[..., t - 1] - ranked.values[..., t]) / ranked.values[..., t]).min()
                assert gap > 1e-5, gap  # what float32 can tell apart
                cases.append({"gguf": case["gguf"], "n_first": first, "t": t, "indices": ranked.indices[..., :t].sort().values.tolist()})
    text = ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases)
    print('{"made_by": "scripts/golden/dapq_picks.py", "versions": {"torch": "%s", "transformers": "%s"}, "cases": [\n%s\n]}' %
          (torch.__version__, transformers.__version__, text))


if __name__ == "__main__":
    main()
