"""Tiny random models of every family and RoPE scaling, as folders and GGUF files, with the logits that transformers computes.

    python scripts/golden/tiny_models.py harness/testing/golden/tiny_models

writes there
    cases.json          versions; the text; for each case its files, its config and what transformers makes of the text in float32
    *.safetensors, *.gguf, tokenizer.json
    logits.f32          little-endian float32, the rows that cases.json names, one case after the other

A case's folder is put together from these files: cases that differ in their config only share weights. Weights are stored in bfloat16 (or
what the case is about), so they mean the same number to everyone. Each case is loaded back from its files by AutoModelForCausalLM: what a
config.json means is transformers' own reading. GGUF files are written with the public gguf package from the same weights, with the names,
row order and metadata of llama.cpp's converter.
"""
import importlib.metadata
import json
import math
import pathlib
import shutil
import sys
import tempfile

import gguf
import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

VOCABULARY = 288  # some ids beyond the tokenizer's, as Qwen has them
MERGES = [("t", "h"), ("th", "e")]
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
BOS, EOS = 256 + len(MERGES), 258 + len(MERGES)
TEXT = ("The keys of a long text are kept, each turned by an angle of its own; what a later word reads of them depends on how far "
        "they lie apart. Zwölf Boxkämpfer, 東京 & 3.14159!\nThe other, then.")
N_TOKENS = 160
N_PROMPT, N_NEW = 40, 24
ROWS = list(range(0, N_TOKENS, 16)) + [N_TOKENS - 3, N_TOKENS - 2, N_TOKENS - 1]
SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 112,
         "vocab_size": VOCABULARY, "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "bos_token_id": BOS, "eos_token_id": EOS,
         "pad_token_id": None}
ORIGINAL = 64  # positions before a stretch
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": ORIGINAL}


def byte_letters():
    """GPT-2's way to write bytes as visible characters."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters, spare = {}, 256
    for byte in range(256):
        letters[byte] = chr(byte if byte in visible else spare)
        spare += byte not in visible
    return letters


def make_tokenizer():
    vocabulary = {letter: byte for byte, letter in byte_letters().items()}
    for merge in MERGES:
        vocabulary["".join(merge)] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=MERGES))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIALS)
    return tokenizer


def randomize(model, seed, storage):
    """Hidden states of about unit size, attention with a shape, logits a few units apart."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        normal = torch.randn(weight.shape, generator=generator)
        if "norm" in name:
            values = 1 + 0.2 * normal
        elif name.endswith("bias"):
            values = 0.5 * normal
        elif "embed_tokens" in name or "lm_head" in name:
            values = 0.5 * normal
        else:
            values = normal * (1.5 if any(part in name for part in ("q_proj", "k_proj", "gate", "up")) else 1.0) / math.sqrt(weight.shape[1])
        weight.data = values.to(storage).float()


def stored_tensors(model, storage):
    tied = model.config.tie_word_embeddings
    return {name: value.to(storage).contiguous() for name, value in model.state_dict().items() if not (tied and name == "lm_head.weight")}


def make_model(kind, config, seed, storage=torch.bfloat16):
    config.architectures = [kind.__name__]
    model = kind(config).eval()
    randomize(model, seed, storage)
    model.tie_weights()
    return model


# --- GGUF ------------------------------------------------------------------------------------------------------------------------------

ARCHITECTURES = {"llama": gguf.MODEL_ARCH.LLAMA, "qwen2": gguf.MODEL_ARCH.QWEN2, "qwen3": gguf.MODEL_ARCH.QWEN3}


def paired_rows(weight, n_heads):
    """Rows of q and k so that neighbours are rotated together: llama.cpp's order for the Llama architecture."""
    shape = weight.shape
    return weight.reshape(n_heads, 2, shape[0] // n_heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def llama3_divisors(config):
    scaling = config.rope_parameters
    low, high, original = scaling["low_freq_factor"], scaling["high_freq_factor"], scaling["original_max_position_embeddings"]
    head_dim = config.hidden_size // config.num_attention_heads
    divisors = []
    for frequency in 1.0 / (scaling["rope_theta"] ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)):
        wave = 2 * math.pi / frequency
        if wave < original / high:
            divisors.append(1)
        elif wave > original / low:
            divisors.append(scaling["factor"])
        else:
            smooth = (original / wave - low) / (high - low)
            divisors.append(1 / ((1 - smooth) / scaling["factor"] + smooth))
    return np.array(divisors, dtype=np.float32)


def write_gguf(path, model, tokenizer, pre):
    config = model.config
    kind = config.model_type
    writer = gguf.GGUFWriter(path, kind)
    writer.add_name("tiny random " + kind)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if kind == "llama":
        writer.add_rope_dimension_count(head_dim)
    if head_dim * config.num_attention_heads != config.hidden_size:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    scaling = config.rope_parameters
    if scaling["rope_type"] == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(scaling["factor"])
        writer.add_rope_scaling_orig_ctx_len(scaling["original_max_position_embeddings"])
    if scaling["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(scaling["factor"])
    if scaling["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_divisors(config))
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    ids = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    unused = config.vocab_size - len(ids)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([token for token, _ in ids] + [f"[PAD{len(ids) + i}]" for i in range(unused)])
    writer.add_token_types([gguf.TokenType.NORMAL] * BOS + [gguf.TokenType.CONTROL] * len(SPECIALS) + [gguf.TokenType.UNUSED] * unused)
    writer.add_token_merges([" ".join(merge) for merge in MERGES])
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_add_bos_token(False)
    names = gguf.get_tensor_name_map(ARCHITECTURES[kind], config.num_hidden_layers)
    for name, tensor in stored_tensors(model, torch.float32).items():
        data = tensor.numpy()
        if kind == "llama" and ".q_proj." in name:
            data = paired_rows(data, config.num_attention_heads)
        if kind == "llama" and ".k_proj." in name:
            data = paired_rows(data, config.num_key_value_heads)
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if data.ndim == 1:
            writer.add_tensor(target, np.ascontiguousarray(data))
        else:
            wide = gguf.GGMLQuantizationType.BF16
            writer.add_tensor(target, gguf.quants.quantize(np.ascontiguousarray(data), wide), raw_dtype=wide)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# --- cases -----------------------------------------------------------------------------------------------------------------------------


def old_style(config, rope_scaling=None):
    """config.json as transformers 4 wrote it and most public models have it."""
    fields = json.loads(config.to_json_string(use_diff=False))
    keep = [*SMALL, "architectures", "model_type", "hidden_act", "tie_word_embeddings", "attention_bias", "mlp_bias", "head_dim",
            "sliding_window", "use_sliding_window"]
    out = {key: fields[key] for key in keep if key in fields and key != "pad_token_id"}
    if out.get("head_dim") is None:
        out.pop("head_dim", None)
    out["rope_theta"] = config.rope_parameters["rope_theta"]
    out["torch_dtype"] = "bfloat16"
    if rope_scaling:
        out["rope_scaling"] = rope_scaling
    return out


def new_style(config):
    config.dtype = torch.bfloat16
    return json.loads(config.to_json_string())


def plain(base=10000.0, **scaling):
    return {"rope_type": "default", "rope_theta": base} | scaling


def families():
    """[(weights name, model, storage type, shards)], [(case name, weights name, config, GGUF pre-tokenizer or None)]"""
    llama = make_model(LlamaForCausalLM, LlamaConfig(**SMALL, tie_word_embeddings=True, rope_parameters=plain()), 1)
    biased = make_model(LlamaForCausalLM, LlamaConfig(**SMALL, attention_bias=True, mlp_bias=True, rope_parameters=plain()), 2)
    qwen2 = make_model(Qwen2ForCausalLM, Qwen2Config(**SMALL, tie_word_embeddings=True, rope_parameters=plain(1e6)), 3)
    qwen2_head = make_model(Qwen2ForCausalLM, Qwen2Config(**SMALL, tie_word_embeddings=False, rope_parameters=plain(1e6)), 4)
    qwen3 = make_model(Qwen3ForCausalLM, Qwen3Config(**SMALL, head_dim=24, tie_word_embeddings=True, rope_parameters=plain(1e6)), 5)
    mistral = make_model(MistralForCausalLM, MistralConfig(**SMALL, sliding_window=None, tie_word_embeddings=False, rope_parameters=plain()), 6)
    half = make_model(LlamaForCausalLM, LlamaConfig(**SMALL | {"num_hidden_layers": 1}, tie_word_embeddings=True, rope_parameters=plain()),
                      7, torch.float16)
    full = make_model(LlamaForCausalLM, LlamaConfig(**SMALL | {"num_hidden_layers": 1}, tie_word_embeddings=True, rope_parameters=plain()),
                      8, torch.float32)
    weights = [("llama", llama, torch.bfloat16, 1), ("llama_biases", biased, torch.bfloat16, 1), ("qwen2", qwen2, torch.bfloat16, 1),
               ("qwen2_head", qwen2_head, torch.bfloat16, 2), ("qwen3", qwen3, torch.bfloat16, 1), ("mistral", mistral, torch.bfloat16, 1),
               ("llama_f16", half, torch.float16, 1), ("llama_f32", full, torch.float32, 1)]

    def stretched(**scaling):
        return new_style(LlamaConfig(**SMALL, tie_word_embeddings=True, architectures=["LlamaForCausalLM"], rope_parameters=plain(**scaling)))

    dynamic = old_style(llama.config, {"type": "dynamic", "factor": 2.5}) | {"max_position_embeddings": ORIGINAL}
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": ORIGINAL}
    cases = [("llama", "llama", old_style(llama.config), "smollm"),
             ("llama_biases", "llama_biases", new_style(biased.config), "smollm"),
             ("llama_linear", "llama", old_style(llama.config, {"type": "linear", "factor": 4.0}), None),
             ("llama_dynamic", "llama", dynamic, None),
             ("llama3", "llama", old_style(llama.config, {"rope_type": "llama3"} | LLAMA3), "llama-bpe"),
             ("llama_yarn", "llama", stretched(**yarn, beta_fast=16.0, beta_slow=2.0, mscale=1.0, mscale_all_dim=0.5), None),
             ("llama_yarn_unrounded", "llama", stretched(**yarn, truncate=False, attention_factor=0.8), None),
             ("qwen2", "qwen2", old_style(qwen2.config), "qwen2"),
             ("qwen2_yarn", "qwen2", old_style(qwen2.config, {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": ORIGINAL}), "qwen2"),
             ("qwen2_head", "qwen2_head", new_style(qwen2_head.config), None),
             ("qwen3", "qwen3", old_style(qwen3.config), "qwen2"),
             ("mistral", "mistral", old_style(mistral.config), None),
             ("llama_f16", "llama_f16", old_style(half.config) | {"torch_dtype": "float16"}, None),
             ("llama_f32", "llama_f32", old_style(full.config) | {"torch_dtype": "float32"}, None)]
    return weights, cases


def save(path, tensors):
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(0o644)


def write_weights(out, name, model, storage, shards):
    """Names in the folder -> names of the files written."""
    tensors = stored_tensors(model, storage)
    if shards == 1:
        save(out / f"{name}.safetensors", tensors)
        return {"model.safetensors": f"{name}.safetensors"}
    files, places = {}, {}
    names = list(tensors)
    for shard in range(shards):
        part = names[shard * len(names) // shards:(shard + 1) * len(names) // shards]
        inside, stored = f"model-{shard + 1:05}-of-{shards:05}.safetensors", f"{name}-{shard + 1}.safetensors"
        save(out / stored, {key: tensors[key] for key in part})
        files[inside] = stored
        places |= dict.fromkeys(part, inside)
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    index = f"{name}.index.json"
    (out / index).write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": places}) + "\n")
    return files | {"model.safetensors.index.json": index}


def measure(out, files, config, ids, greedy):
    with tempfile.TemporaryDirectory() as folder:
        for inside, stored in files.items():
            shutil.copy(out / stored, pathlib.Path(folder) / inside)
        (pathlib.Path(folder) / "config.json").write_text(json.dumps(config))
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.inference_mode():
        logits = model(torch.tensor([ids])).logits[0]
        new = None
        if greedy:
            new = model.generate(torch.tensor([ids[:N_PROMPT]]), max_new_tokens=N_NEW, do_sample=False, eos_token_id=None,
                                 pad_token_id=0)[0, N_PROMPT:].tolist()
    top = logits.topk(2).values
    margin = (top[:, 0] - top[:, 1]).min().item()
    largest = logits.abs().max().item()
    assert margin > 2e-5 * largest, f"a tie: {margin}"  # float32 sums in another order differ by some 1e-6 of the largest
    return logits, model, {"largest": round(largest, 4), "least_margin": round(margin, 5), "top": logits.argmax(-1).tolist(), "greedy": new}


def main():
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    tokenizer = make_tokenizer()
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    ids = tokenizer.encode(TEXT, add_special_tokens=False).ids[:N_TOKENS]
    text = tokenizer.decode(ids)
    assert len(ids) == N_TOKENS and max(ids) == BOS - 1 and TEXT.startswith(text) and tokenizer.encode(text, add_special_tokens=False).ids == ids
    weights, cases = families()
    files = {name: write_weights(out, name, model, storage, shards) for name, model, storage, shards in weights}
    listed, rows = [], []
    for name, weight_name, config, pre in cases:
        inside = files[weight_name] | {"tokenizer.json": "tokenizer.json"}
        logits, model, facts = measure(out, inside, config, ids, "dynamic" not in name)
        if pre:
            write_gguf(str(out / f"{name}.gguf"), model, tokenizer, pre)
        rows.append(logits[ROWS].numpy())
        listed.append({"name": name, "files": inside, "gguf": f"{name}.gguf" if pre else None, "config": config} | facts)
        print(f"{name:22} largest {facts['largest']:8.3f}  least margin {facts['least_margin']:.4f}  distinct tops {len(set(facts['top']))}", file=sys.stderr)
    np.stack(rows).astype("<f4").tofile(out / "logits.f32")
    packages = ("torch", "transformers", "safetensors", "tokenizers", "gguf")
    head = {"made_by": "python scripts/golden/tiny_models.py harness/testing/golden/tiny_models",
            "versions": {package: importlib.metadata.version(package) for package in packages},
            "text": text, "end": EOS, "ids": ids, "vocabulary": VOCABULARY, "rows": ROWS,
            "n_prompt": N_PROMPT, "n_new": N_NEW, "cases": listed}
    (out / "cases.json").write_text(json.dumps(head, ensure_ascii=False) + "\n")


main()
