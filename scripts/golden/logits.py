"""Golden log-probabilities of the demo model on real text, by `transformers` in float32 from the same GGUF.

    python scripts/golden/logits.py models/smollm2-135m-instruct.gguf datasets/samples/quality.jsonl 20002 > harness/testing/golden/logits.json

Ids come from `tokenizers`, built from the file's vocabulary with the pre-tokenizer that the file names (`smollm`): the conversion in
transformers forgets that it splits every digit. The weights' conversion in transformers is what is trusted here.
"""
import importlib.metadata
import json
import os
import sys

import torch
from gguf import GGUFReader
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM

N_TOKENS = 2200
FULL_ROWS = [0, 150, 599, 2199]
STRIDE = 48  # of the vocabulary in the full rows


def token_ids(path, text):
    fields = GGUFReader(path).fields
    assert fields["tokenizer.ggml.pre"].contents() == "smollm"
    vocabulary = {token: i for i, token in enumerate(fields["tokenizer.ggml.tokens"].contents())}
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return tokenizer.encode(text, add_special_tokens=False).ids


def main():
    path, articles, article_id = sys.argv[1:]
    with open(articles) as lines:
        article = next(a for a in map(json.loads, lines) if a["article_id"] == article_id)["article"]
    ids = token_ids(path, article)[:N_TOKENS]
    model = AutoModelForCausalLM.from_pretrained(os.path.dirname(path), gguf_file=os.path.basename(path),
                                                 dtype=torch.float32, attn_implementation="eager").eval()
    with torch.inference_mode():
        hidden = model.model(torch.tensor([ids])).last_hidden_state[0]
        log_probs = torch.cat([model.lm_head(part).double().log_softmax(-1) for part in hidden.split(256)])
    top = log_probs.topk(2).values
    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "tokenizers", "gguf", "accelerate")}
    out = {"made_by": f"python scripts/golden/logits.py {path} {articles} {article_id}", "versions": versions,
           "text": f"QuALITY article {article_id}, first {len(ids)} tokens", "ids": ids,
           "next_log_prob": [round(log_probs[i, ids[i + 1]].item(), 5) for i in range(len(ids) - 1)],
           "top": log_probs.argmax(-1).tolist(),
           "top_margin": [round(x, 4) for x in (top[:, 0] - top[:, 1]).tolist()],
           "vocabulary_stride": STRIDE,
           "rows": [{"position": i, "log_probs": [round(x, 4) for x in log_probs[i, ::STRIDE].tolist()]} for i in FULL_ROWS]}
    json.dump(out, sys.stdout)
    print()


main()
