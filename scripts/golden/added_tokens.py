#!/usr/bin/env python3
"""Makes harness/testing/golden/added_tokens.json: tokens that were added to a vocabulary and are not special, met in a document.

    python scripts/golden/added_tokens.py

To the small tokenizers of harness/testing/golden/tokenizers are added a letter, runs of blanks, two words and markup. Judges are
`tokenizers` with split_special_tokens and `sentencepiece`; tokens spelled as markup count as special (tokenizer_judges.is_plain).
"""
import json
import pathlib

from tokenizers import AddedToken, Tokenizer

import tokenizer_judges as judges
from tokenizer_judges import JsonJudge, SentencePieceJudge, sentencepiece_proto

GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "harness/testing/golden"
ADDED = ["\u00f6", "    ", "\n\n\n", "blue whale", "whale", "<think>", "[TOOL]", "\u6f22", "\u0151"]
TEXTS = ["", "\u00f6", "\u00f6\u00f6", "sch\u00f6n", "sch\u00f6n ist \u00f6 \u00d6", "a    b", "     a", "a     ", "    ", "        ", "x\n\n\ny", "\n\n\n\n",
         "the blue whale", "blue whales", "blue  whale", " whale ", "<think>a</think>", "think <think> [TOOL]", "\u6f22\u5b57 \u6f22", "  \u00f6  ", "n\u0151 \u0151\u0151", "\u00f6 a", "\u00f6    \u00f6",
         "1\u00f62", "It's \u00f6's", "\u00f6\n\n\n    blue whale\u6f22", "<s>\u00f6</s>", "<|im_end|>\u00f6<|im_start|>"]


def json_case(name, strip=False):
    source = (GOLDEN / "tokenizers" / name / "tokenizer.json").read_text()
    judge = Tokenizer.from_str(source)
    before = json.loads(judge.to_str())["added_tokens"]
    judge.add_tokens([AddedToken(t, normalized=False, lstrip=strip and t == "whale", rstrip=strip and t == "\u00f6") for t in ADDED])
    tree = json.loads(judge.to_str())
    data = JsonJudge(json.dumps(tree))
    return {"tokenizer": name, "added_tokens": [t for t in tree["added_tokens"] if t not in before], "ids": [data.ids(text) for text in TEXTS]}


def sentencepiece_case():
    source = (GOLDEN / "tokenizers/llama2/tokenizer.model").read_bytes()
    known = {p.piece for p in sentencepiece_proto.ModelProto.FromString(source).pieces}
    extra = sentencepiece_proto.ModelProto()
    for piece in (token.replace(" ", "\u2581") for token in ADDED):
        if piece not in known:
            extra.pieces.add(piece=piece, score=0, type=judges.USER)
    behind = extra.SerializeToString()  # messages that stand one behind the other are one message
    judge = SentencePieceJudge(source + behind)
    return {"tokenizer": "llama2", "model_appendix_hex": behind.hex(), "ids": [judge.ids(text) for text in TEXTS]}


def main():
    cases = [json_case(n) for n in ("qwen", "llama3", "llama2_prepend", "llama2_always", "llama2_first")]
    cases += [json_case("qwen", strip=True), sentencepiece_case()]
    packages = [JsonJudge.package, SentencePieceJudge.package]
    value = {"made_by": "python scripts/golden/added_tokens.py", "packages": packages, "texts": TEXTS, "cases": cases}
    text = json.dumps(value, separators=(",", ":")).replace('],[', '],\n[').replace('},{', '},\n{')
    (GOLDEN / "added_tokens.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
