#!/usr/bin/env python3
"""Small tokenizers of every construction, and the ids that the public packages give for them.

    python scripts/golden/tokenizer_ids.py [--released FOLDER] harness/testing/golden/tokenizers

Writes one folder (or GGUF file) per construction, text.json (the recipe of the varied text) and ids.json. Vocabularies are
trained on the varied text of another seed. FOLDER holds released tokenizers that may not be passed on (llama2/tokenizer.model,
llama3_1/tokenizer.json, qwen3/tokenizer.json); of these only the hash of the ids is stored, under `released`.
"""
import argparse
import io
import json
import pathlib
import random
import re

import gguf
import sentencepiece
import tokenizers
from tokenizers import AddedToken, Tokenizer, models, processors, trainers

import tokenizer_judges as judges
import varied_text
from tokenizer_judges import JsonJudge, SentencePieceJudge, byte_level, digits_then_words, hashed, split_at

LLAMA3_SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_7|>", "<|start_header_id|>", "<|end_header_id|>",
                  "<|eot_id|>", "<|python_tag|>"]
QWEN_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|fim_prefix|>"]
QWEN_PLAIN = ["<tool_call>", "</tool_call>", "<think>", "</think>"]  # recognised, but text for whoever decodes
SMOLLM_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<file_sep>", "<jupyter_code>"]
SMOLLM_LOST = [0x04, 0x06, 0x13, 0x14, 0x16, 0x1D, 0xF5, 0xF6]  # bytes that the vocabulary lacks


def added(names, special=True, **options):
    return [AddedToken(n, normalized=False, special=special, **options) for n in names]


def train_bytes(judge, sample, size):
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    judge.train_from_iterator(sample, trainers.BpeTrainer(vocab_size=size, initial_alphabet=sorted(alphabet), show_progress=False))
    return json.loads(judge.to_str())["model"]


def rebuild(tree, judge):
    """`judge` with the vocabulary and merges of `tree`."""
    pairs = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in tree["merges"]]
    result = Tokenizer(models.BPE(tree["vocab"], pairs, ignore_merges=tree.get("ignore_merges", False), unk_token=tree.get("unk_token")))
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        if getattr(judge, part) is not None:
            setattr(result, part, getattr(judge, part))
    return result


def llama3(sample):
    judge = byte_level({}, [], split_at(judges.LLAMA3))
    tree = train_bytes(judge, sample, 1600)
    # Some words of the real vocabulary are out of reach for its merges; ignore_merges takes them whole.
    kept = random.Random(3)
    tree["merges"] = [m for m in tree["merges"] if kept.random() > 0.03]
    tree["ignore_merges"] = True
    judge = rebuild(tree, judge)
    judge.add_special_tokens(added(LLAMA3_SPECIAL))
    first = judge.token_to_id("<|begin_of_text|>")
    judge.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A <|begin_of_text|>:1 $B:1",
                                      special_tokens=[("<|begin_of_text|>", first)])])
    tree = json.loads(judge.to_str())
    tree["model"]["merges"] = [" ".join(m) for m in tree["model"]["merges"]]
    return tree, {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}


def qwen(sample):
    judge = byte_level({}, [], split_at(judges.QWEN2), nfc=True)
    judge = rebuild(train_bytes(judge, sample, 1500), judge)
    judge.add_special_tokens(added(QWEN_SPECIAL))
    judge.add_tokens(added(QWEN_PLAIN, special=False))
    judge.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    return json.loads(judge.to_str()), {"add_bos_token": False, "bos_token": None, "eos_token": "<|im_end|>"}


def smollm(sample):
    judge = byte_level({}, [], digits_then_words())
    tree = train_bytes(judge, sample, 1200)
    spell = {b: c for b, c in zip(range(256), byte_alphabet())}
    lost = {spell[b] for b in SMOLLM_LOST}
    tree["merges"] = [m for m in tree["merges"] if not lost & set("".join(m))]
    vocab = [t for t in sorted(tree["vocab"], key=tree["vocab"].get) if not lost & set(t)]
    tree["vocab"] = {t: i for i, t in enumerate(SMOLLM_SPECIAL + vocab)}
    tree["unk_token"] = "<|endoftext|>"
    judge = rebuild(tree, judge)
    judge.add_special_tokens(added(SMOLLM_SPECIAL))
    return json.loads(judge.to_str()), {"add_bos_token": False, "eos_token": "<|im_end|>"}


def byte_alphabet():
    """GPT-2's spelling of the bytes 0 to 255."""
    shown = set(range(0x21, 0x7F)) | set(range(0xA1, 0xAD)) | set(range(0xAE, 0x100))
    hidden = iter(range(0x100, 0x200))
    return [chr(b) if b in shown else chr(next(hidden)) for b in range(256)]


def train_sentencepiece(sample):
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sample), model_writer=out, vocab_size=1300, model_type="bpe", byte_fallback=True, split_digits=True,
        character_coverage=0.985, normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=True,
        allow_whitespace_only_pieces=True, max_sentence_length=65536, num_threads=1, minloglevel=2)
    return out.getvalue()


def write_gguf(path, source, prefix):
    proto = judges.sentencepiece_proto.ModelProto.FromString(source)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list([p.piece for p in proto.pieces])
    writer.add_token_scores([p.score for p in proto.pieces])
    writer.add_token_types([p.type for p in proto.pieces])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(prefix)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def write_byte_gguf(path, tree, pre):
    special = {a["id"]: a for a in tree["added_tokens"]}
    names = dict(tree["model"]["vocab"]) | {a["content"]: i for i, a in special.items()}
    tokens = sorted(names, key=names.get)
    merges = [m if isinstance(m, str) else " ".join(m) for m in tree["model"]["merges"]]
    writer = gguf.GGUFWriter(path, "qwen2" if pre == "qwen2" else "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([judges.NORMAL if i not in special else judges.CONTROL if special[i]["special"] else judges.USER
                            for i in range(len(tokens))])
    writer.add_token_merges(merges)
    writer.add_eos_token_id(names["<|im_end|>" if pre == "qwen2" else "<|eot_id|>"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


CONTROL_PATTERNS = ["{0}", "{0}{1}", "a{0}b", " {0} ", "{0}\n", "{0}system\nYou are it.{1}\n{0}user\n1 + 1?{1}\n", "x {0}  y", "{0} {1} {0}", "<{0}>",
                    "{0}e\u0301{1}\u0301", "  {0}", "\t{1}\n\n{0}a", "{0}{0}{0}", "1{0}2", "\u4f60{1}\u597d", "{1}'s", "{0}[INST] hi [/INST]{1}", "<|{0}|>", "\u2581{0}\u2581x"]


def control_lines(names):
    names = names + [names[0]]
    return [p.format(names[i], names[(i + j) % len(names)]) for i in range(min(4, len(names) - 1)) for j in (1,) for p in CONTROL_PATTERNS]


def stored(ids):
    return ids if len(ids) <= 60 else {"count": len(ids), "hash": hashed(ids)}


def dump(path, tree):
    """JSON with one line for each entry of the outer two levels' lists; the vocabulary on one line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(tree, ensure_ascii=True, separators=(",", ":")).replace('],"', '],\n"').replace('},"', '},\n"') + "\n"
    assert json.loads(text) == tree
    path.write_text(text)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("out", type=pathlib.Path)
    arguments.add_argument("--released", type=pathlib.Path)
    arguments.add_argument("--demo", default="models/smollm2-135m-instruct.gguf")
    arguments = arguments.parse_args()
    out = arguments.out
    recipe = varied_text.recipe(20002, 2 << 20)
    text, lines = varied_text.text(recipe), varied_text.hard_lines()
    sample = re.findall(r"[^\n]*\n|[^\n]+$", varied_text.text(varied_text.recipe(7, 600_000)))
    entries = {}

    def enter(name, path, judge, control=None, names=()):
        ids = judge.ids(text)
        entry = {"path": path, "package": judge.package, "count": len(ids), "hash": hashed(ids)}
        if not path.startswith("released/"):
            entry["lines"] = [stored(judge.ids(line)) for line in lines]
        if control:
            entry["control"] = [[line, stored(control.ids(line))] for line in control_lines(list(names))]
        entries[name] = entry

    for name, (tree, config), names in (("llama3", llama3(sample), LLAMA3_SPECIAL), ("qwen", qwen(sample), QWEN_SPECIAL[:3] + QWEN_PLAIN[2:]),
                                        ("smollm", smollm(sample), SMOLLM_SPECIAL)):
        dump(out / name / "tokenizer.json", tree)
        dump(out / name / "tokenizer_config.json", config)
        source = json.dumps(tree)
        enter(name, name, JsonJudge(source), JsonJudge(source, control=True), names)
        if name != "smollm":
            write_byte_gguf(str(out / f"{name}.gguf"), tree, {"llama3": "llama-bpe", "qwen": "qwen2"}[name])
            enter(f"{name}.gguf", f"{name}.gguf", judges.judge_of(out / f"{name}.gguf"))

    source = train_sentencepiece([s.replace("\0", "") for s in sample])
    (out / "llama2").mkdir(parents=True, exist_ok=True)
    (out / "llama2" / "tokenizer.model").write_bytes(source)
    enter("llama2", "llama2", SentencePieceJudge(source))
    for form in ("prepend", "always", "first"):
        tree = judges.from_sentencepiece(source, form).to_str()
        dump(out / f"llama2_{form}" / "tokenizer.json", json.loads(tree))
        dump(out / f"llama2_{form}" / "tokenizer_config.json", {"add_bos_token": True, "bos_token": "<s>", "eos_token": "</s>"})
        enter(f"llama2_{form}", f"llama2_{form}", JsonJudge(tree), JsonJudge(tree, control=True), ["<s>", "</s>", "<unk>"])
    for name, prefix in (("llama2.gguf", True), ("llama2_no_prefix.gguf", False)):
        write_gguf(str(out / name), source, prefix)
        enter(name, name, judges.judge_of(out / name))
    enter("smollm2", "demo", judges.judge_of(arguments.demo))
    if arguments.released:
        for name in ("llama2", "llama3_1", "qwen3"):
            enter(f"released {name}", f"released/{name}", judges.judge_of(arguments.released / name))

    dump(out / "text.json", {"made_by": "python scripts/golden/tokenizer_ids.py", "hash": judges.fnv1a(text.encode()), "recipe": recipe})
    dump(out / "ids.json", {"made_by": "python scripts/golden/tokenizer_ids.py --released FOLDER harness/testing/golden/tokenizers",
                            "packages": {"tokenizers": tokenizers.__version__, "sentencepiece": sentencepiece.__version__, "gguf": "0.19.0"},
                            "lines": lines, "tokenizers": entries})


if __name__ == "__main__":
    main()
