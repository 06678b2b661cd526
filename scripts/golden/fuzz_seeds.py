#!/usr/bin/env python3
"""Makes the small files that the fuzz targets start from, harness/testing/fuzz/corpus/fuzz_gguf, fuzz_tokenizer and fuzz_config.

    python scripts/golden/fuzz_seeds.py        needs numpy, gguf, sentencepiece
"""
import io
import json
import pathlib

import gguf
import numpy
import sentencepiece

CORPUS = pathlib.Path(__file__).resolve().parents[2] / "harness/testing/fuzz/corpus"
SPACE = "\u2581"
QWEN = (r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def byte_letters():
    """The letter that stands for each byte in byte-level vocabularies."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (chr(256 + i) for i in range(256))
    return [chr(b) if b in printable else next(others) for b in range(256)]


def write_gguf(path, architecture, byte_level):
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(8)
    writer.add_feed_forward_length(16)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    if byte_level:
        tokens = byte_letters() + ["he", "ll", "hell", "<|im_start|>", "<|im_end|>"]
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("smollm")
        writer.add_token_list(tokens)
        writer.add_token_types([1] * 259 + [3, 3])
        writer.add_token_merges(["h e", "l l", "he ll"])
        writer.add_eos_token_id(260)
    else:
        tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)] + [SPACE, "h", "e", "l", "he", SPACE + "he"]
        writer.add_tokenizer_model("llama")
        writer.add_token_list(tokens)
        writer.add_token_scores([0.0] * 259 + [-1.0, -2.0, -3.0, -4.0, -0.5, -0.25])
        writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * 6)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
    shapes = {"attn_q": (8, 8), "attn_k": (4, 8), "attn_v": (4, 8), "attn_output": (8, 8), "ffn_gate": (16, 8), "ffn_up": (16, 8),
              "ffn_down": (8, 16)}
    writer.add_tensor("token_embd.weight", numpy.zeros((len(tokens), 8), dtype=numpy.float16))
    for name, shape in shapes.items():
        writer.add_tensor(f"blk.0.{name}.weight", numpy.zeros(shape, dtype=numpy.float16))
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", numpy.ones(8, dtype=numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def added(token_id, content):
    return {"id": token_id, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


def byte_level_json():
    letters = byte_letters()
    plain = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    vocabulary = {letter: b for b, letter in enumerate(letters)} | {"he": 256, "ll": 257, "hell": 258}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [added(260, "<|im_end|>")], "normalizer": {"type": "NFC"},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": QWEN}, "behavior": "Isolated", "invert": False}, plain]},
            "post_processor": plain, "decoder": plain,
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": "",
                      "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": vocabulary,
                      "merges": ["h e", "l l", "he ll"]}}


def characters_json():
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"<0x{b:02X}>": 3 + b for b in range(256)}
    vocabulary |= {SPACE: 259, "h": 260, "e": 261, "he": 262, SPACE + "he": 263}
    return {"added_tokens": [added(i, content) for i, content in enumerate(["<unk>", "<s>", "</s>"])],
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Prepend", "prepend": SPACE}, {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}]},
            "pre_tokenizer": None,
            "post_processor": {"type": "TemplateProcessing", "pair": [], "single": [
                {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
            "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True, "vocab": vocabulary,
                      "merges": ["h e", SPACE + " he"]}}


def sentencepiece_model():
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["hello world the quick brown fox jumps over the lazy dog"] * 20), model_writer=out, vocab_size=300,
        model_type="bpe", byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        hard_vocab_limit=False, minloglevel=2)
    return out.getvalue()


def configs():
    """config.json of each family, with what generation_config.json may hold beside it."""
    base = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 128,
            "vocab_size": 300, "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
            "tie_word_embeddings": False, "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": [2, 3], "do_sample": True,
            "temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.0, "repetition_penalty": 1.05}
    llama3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
    return {
        "llama": base | {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "attention_bias": True, "mlp_bias": True,
                         "pretraining_tp": 1, "rope_scaling": llama3},
        "llama_linear": base | {"model_type": "llama", "rope_scaling": {"type": "linear", "factor": 2.0}},
        "qwen2": base | {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "use_sliding_window": False, "sliding_window": 128,
                         "max_window_layers": 2, "rope_scaling": yarn},
        "qwen3": base | {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "head_dim": 32, "attention_bias": False,
                         "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e6, "factor": 2.0}},
        "mistral": base | {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": None, "head_dim": None},
    }


def main():
    models, tokenizers, sizes = CORPUS / "fuzz_gguf", CORPUS / "fuzz_tokenizer", CORPUS / "fuzz_config"
    for folder in (models, tokenizers, sizes):
        folder.mkdir(parents=True, exist_ok=True)
    write_gguf(models / "llama_bytes.gguf", "llama", True)
    write_gguf(models / "qwen2_scores.gguf", "qwen2", False)
    (tokenizers / "byte_level.json").write_text(json.dumps(byte_level_json(), ensure_ascii=False), encoding="utf-8")
    (tokenizers / "characters.json").write_text(json.dumps(characters_json(), ensure_ascii=False), encoding="utf-8")
    (tokenizers / "small.model").write_bytes(sentencepiece_model())
    for name, value in configs().items():
        (sizes / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")


if __name__ == "__main__":
    main()
