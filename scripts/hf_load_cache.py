#!/usr/bin/env python3
"""A compact cache of `kvc compact --out` in Hugging Face transformers, for models of the Llama and Qwen families.

    scripts/hf_load_cache.py --model MODEL --cache CACHE.safetensors [--check LOGITS.safetensors]

MODEL is what kvc was given: a GGUF file, or a folder as downloaded from a model hub. Without --check the script reads the cache into the model and
says what it holds. With --check it reads the prompts and answers of `kvc ask --logits` behind the cache, in float32, and prints the largest difference
between the two programs' logits (give kvc --dtype float32). Exit code 1: they differ by more than --tolerance; 3: a damaged file, or another
model's.

As a library:

    model, cache = hf_load_cache.load("models/smollm2-135m-instruct.gguf", "notes.safetensors")
    logits = hf_load_cache.forward(model, cache, prompt_ids)            # (tokens, vocabulary)
    answer = hf_load_cache.generate(model, cache.copy(), prompt_ids, max_new_tokens=32)

The layout of the file is on the page harness/kv/README.md. Needs torch, transformers, safetensors, numpy, and gguf for GGUF files.

How it works: heads are filled up to the longest one of their layer, since transformers keeps rectangular tensors. What is filled up has the bias minus
infinity, so no query sees it. The biases are added to the scaled logits by an attention function that is registered as "kvcompact". Positions are
not counted from the cache: new tokens go on at the file's next_position.
"""
import argparse
import copy
import json
import os
import pathlib
import sys
import warnings

if __name__ == "__main__":
    os.environ.setdefault("TQDM_DISABLE", "1")  # read when tqdm is imported

import numpy as np
import torch
from safetensors import safe_open
import transformers
from transformers import AttentionInterface, AutoModelForCausalLM, DynamicCache
from transformers.masking_utils import AttentionMaskInterface

FORMAT = "kvcompact.cache.v1"
CHUNK = 1 << 20
ODD1, ODD2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
WORD = (1 << 64) - 1


class CacheError(Exception):
    """A file that cannot be used: what, where, and how to mend it."""

    def __init__(self, fact, where, mend="make the cache again"):
        super().__init__(f"{fact}\n  where: {where}\n  mend:  {mend}")


# The content hash of harness/model/formats/content_hash.cpp, over many chunks at once.


def mix(x):
    x = ((x ^ x >> 33) * 0xFF51AFD7ED558CCD) & WORD
    x = ((x ^ x >> 33) * 0xC4CEB9FE1A85EC53) & WORD
    return x ^ x >> 33


def absorb(state, word):
    x = state ^ (word * int(ODD2)) & WORD
    return (((x << 31 | x >> 33) & WORD) * int(ODD1)) & WORD


def chunk_hashes(chunks):
    """Of byte arrays of at most CHUNK bytes each."""
    steps = np.array([len(c) // 32 for c in chunks])
    order = np.argsort(-steps, kind="stable")
    words = np.zeros((len(chunks), int(steps.max()) + 1, 4), dtype="<u8")
    for row, i in enumerate(order):
        words[row].reshape(-1).view(np.uint8)[: len(chunks[i])] = chunks[i]
    lanes = np.tile(np.arange(1, 5, dtype=np.uint64), (len(chunks), 1))
    active = np.searchsorted(-steps[order], -np.arange(int(steps.max()) + 1), side="right")
    for step, n in enumerate(active):
        x = lanes[:n] ^ words[:n, step] * ODD2
        lanes[:n] = (x << np.uint64(31) | x >> np.uint64(33)) * ODD1
    hashes = [0] * len(chunks)
    for row, i in enumerate(order):
        state = len(chunks[i])
        for lane in lanes[row]:
            state = absorb(state, mix(int(lane)))
        hashes[i] = mix(state)
    return hashes


def content_hashes(arrays, chunks_at_once=256):
    """The 16 digits of each byte array."""
    pieces = [(i, a[begin: begin + CHUNK]) for i, a in enumerate(arrays) for begin in range(0, len(a), CHUNK)]
    states = [len(a) for a in arrays]
    for begin in range(0, len(pieces), chunks_at_once):
        part = pieces[begin: begin + chunks_at_once]
        for (i, _), value in zip(part, chunk_hashes([piece for _, piece in part])):
            states[i] = absorb(states[i], value)
    return [f"{mix(state):016x}" for state in states]


def stable_hash(text):
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = ((value ^ byte) * 0x100000001B3) & WORD
    return f"{value:016x}"


def weights_hash(path):
    """As kvc hashes a GGUF file; None for a folder."""
    return content_hashes([np.memmap(path, dtype=np.uint8, mode="r")])[0] if os.path.isfile(path) else None


# The file.


def read_tensors(path, expected):
    """Tensors and metadata; a file that is cut short or of another kind is a CacheError."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != expected:
                raise CacheError(f"the file's format is '{metadata.get('format')}', not '{expected}'", path, "name a file of kvc")
            return {name: file.get_tensor(name) for name in file.keys()}, metadata
    except CacheError:
        raise
    except Exception as error:  # safetensors has no class of its own for every damage
        raise CacheError(f"cannot read the file: {error}", path) from error


def check_content(path, tensors, metadata):
    names = sorted(tensors)
    arrays = [tensors[name].contiguous().view(-1).view(torch.uint8).numpy() for name in names]
    text = "".join(f"{name} {digits}\n" for name, digits in zip(names, content_hashes(arrays)))
    text += "".join(f"{key} {metadata[key]}\n" for key in sorted(metadata) if key != "content_hash")
    if stable_hash(text) != metadata.get("content_hash"):
        raise CacheError("the file is damaged: its content is not what was written", path)


def check_model(path, metadata, model_path):
    made = json.loads(metadata["model"])
    found = weights_hash(model_path)
    if found is not None and found != made.get("content_hash"):
        raise CacheError(f"the cache was made by another model: its weights are {made.get('content_hash')}, these are {found}", path,
                         "name the model it was made with")
    if found is None:
        print("note: weights in a folder are compared by shape only", file=sys.stderr)
    if made.get("rope_scaling"):
        raise CacheError(f"the cache was made with rope scaling {made['rope_scaling']}", path, "this script reads caches without it")


def read_layer(path, tensors, index, n_heads, head_dim):
    """Keys and values (heads, longest, d), bias (heads, longest) float32 with minus infinity where a head has no entry."""
    def take(name):
        full = f"layers.{index}.{name}"
        if full not in tensors:
            raise CacheError(f"the tensor '{full}' is missing", path)
        return tensors[full]

    offsets = take("head_offsets").tolist()
    keys, values = take("keys"), take("values")
    if len(offsets) != n_heads + 1 or offsets[0] != 0 or any(a > b for a, b in zip(offsets, offsets[1:])):
        raise CacheError(f"'layers.{index}.head_offsets' are not those of {n_heads} heads", path, "name the model it was made with")
    for name, tensor in (("keys", keys), ("values", values)):
        if tuple(tensor.shape) != (offsets[-1], head_dim):
            raise CacheError(f"'layers.{index}.{name}' must be ({offsets[-1]}, {head_dim}); got {tuple(tensor.shape)}", path,
                             "name the model it was made with")
    bias = tensors.get(f"layers.{index}.bias", torch.zeros(offsets[-1]))
    longest = max(b - a for a, b in zip(offsets, offsets[1:]))
    padded = [torch.zeros(n_heads, longest, head_dim, dtype=keys.dtype), torch.zeros(n_heads, longest, head_dim, dtype=keys.dtype),
              torch.full((n_heads, longest), -torch.inf)]
    for head, (begin, end) in enumerate(zip(offsets, offsets[1:])):
        for whole, packed in zip(padded, (keys, values, bias)):
            whole[head, : end - begin] = packed[begin:end]
    return padded


class CompactCache(DynamicCache):
    """A cache that is filled from a file. `biases` and `next_position` go with it; `copy` it to ask several questions."""

    def copy(self):
        return copy.deepcopy(self)


def attend(module, query, key, value, attention_mask, scaling, dropout=0.0, **kwargs):
    """query (B, heads, n, d); key, value (B, KV heads, prefix + tail, d), the tail ending with the n tokens of the query."""
    biases = getattr(module, "kvcompact_biases", None)
    if biases is None:
        raise RuntimeError("call hf_load_cache.forward(), which hands the cache's biases to the model's layers")
    batch, n_heads, n, dim = query.shape
    n_kv, length = key.shape[1], key.shape[2]
    bias = biases[module.layer_idx].to(query.device)
    prefix = bias.shape[1]
    grouped = query.view(batch, n_kv, n_heads // n_kv, n, dim)
    scores = torch.einsum("bhgnd,bhtd->bhgnt", grouped, key).float() * scaling
    scores[..., :prefix] += bias[None, :, None, None, :]
    rows = torch.arange(length - prefix - n, length - prefix, device=query.device)
    hidden = torch.arange(length - prefix, device=query.device)[None, :] > rows[:, None]
    scores[..., prefix:] = scores[..., prefix:].masked_fill(hidden, -torch.inf)
    weights = torch.softmax(scores, dim=-1).to(value.dtype)
    output = torch.einsum("bhgnt,bhtd->bhgnd", weights, value).reshape(batch, n_heads, n, dim)
    return output.transpose(1, 2).contiguous(), None


AttentionInterface.register("kvcompact", attend)
AttentionMaskInterface.register("kvcompact", lambda *args, **kwargs: None)  # attend() masks for itself


def load_model(path, dtype=torch.float32):
    path = pathlib.Path(path)
    where = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name} if path.is_file() else {"pretrained_model_name_or_path": path}
    return AutoModelForCausalLM.from_pretrained(**where, dtype=dtype, attn_implementation="kvcompact", local_files_only=True).eval()


def load(model_path, cache_path, dtype=torch.float32):
    """(model, CompactCache). Throws CacheError."""
    tensors, metadata = read_tensors(cache_path, FORMAT)
    check_content(cache_path, tensors, metadata)
    check_model(cache_path, metadata, str(model_path))
    model = load_model(model_path, dtype)
    config = model.config
    n_kv = config.num_key_value_heads
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if f"layers.{config.num_hidden_layers}.keys" in tensors:
        raise CacheError(f"the cache has more layers than the model's {config.num_hidden_layers}", cache_path, "name the model it was made with")
    cache = CompactCache()
    cache.biases, cache.next_position = [], int(metadata["next_position"])
    for layer in range(config.num_hidden_layers):
        keys, values, bias = read_layer(cache_path, tensors, layer, n_kv, dim)
        cache.update(keys[None].to(model.dtype), values[None].to(model.dtype), layer)
        cache.biases.append(bias)
    return model, cache


@torch.inference_mode()
def forward(model, cache, ids):
    """Reads token ids behind the cache, which grows by them; logits (tokens, vocabulary), float32."""
    for layer in model.model.layers:
        layer.self_attn.kvcompact_biases = cache.biases
    tail = cache.layers[0].keys.shape[2] - cache.biases[0].shape[1]
    positions = torch.arange(len(ids))[None] + cache.next_position + tail
    out = model(input_ids=torch.tensor([ids]), position_ids=positions, past_key_values=cache, use_cache=True)
    return out.logits[0].float()


def generate(model, cache, ids, max_new_tokens=64, end_ids=None):
    """Greedy; token ids without the end token."""
    ends = model.generation_config.eos_token_id if end_ids is None else end_ids
    ends = set(ends if isinstance(ends, list) else [ends])
    answer = []
    for _ in range(max_new_tokens):
        token = forward(model, cache, ids)[-1].argmax().item()
        if token in ends:
            break
        answer.append(token)
        ids = [token]
    return answer


def check(model, cache, path, tolerance):
    """True where the logits of `kvc ask --logits` come out within the tolerance."""
    tensors, metadata = read_tensors(path, "kvcompact.logits.v1")
    if int(metadata["next_position"]) != cache.next_position:
        raise CacheError("the logits are of another cache", path, "make them with kvc ask --cache and this cache")
    worst, n_rows, n = 0.0, 0, 0
    while f"questions.{n}.prompt" in tensors:
        prompt, answer = (tensors[f"questions.{n}.{name}"].tolist() for name in ("prompt", "answer"))
        theirs = tensors[f"questions.{n}.logits"]
        ours = forward(model, cache.copy(), prompt + answer[:-1])[len(prompt) - 1:]
        difference = (ours - theirs).abs().max().item()
        same = (ours.argmax(-1) == theirs.argmax(-1)).all().item()
        print(f"question {n}: {len(prompt)} + {len(answer)} tokens, largest difference of logits {difference:.2e} "
              f"(logits up to {theirs.abs().max().item():.1f}), {'the same' if same else 'OTHER'} likeliest tokens")
        worst, n_rows, n = max(worst, difference), n_rows + len(answer), n + 1
    if n == 0:
        raise CacheError("the file has no questions", path, "make it with kvc ask --logits")
    print(f"largest difference over {n_rows} tokens: {worst:.2e}; tolerance {tolerance:.0e}")
    return worst <= tolerance


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="GGUF file or model folder")
    parser.add_argument("--cache", required=True, help="file of kvc compact --out")
    parser.add_argument("--check", metavar="LOGITS", help="file of kvc ask --logits to compare with")
    parser.add_argument("--tolerance", type=float, default=1e-3, help="largest difference of a logit (default 1e-3)")
    options = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message=".*past_key_values.*", category=FutureWarning)  # its new name is not known to older versions
    try:
        model, cache = load(options.model, options.cache)
        entries = sum(int(torch.isfinite(bias).sum()) for bias in cache.biases)
        print(f"{entries} entries in {len(cache.biases)} layers; heads of {min(b.isfinite().sum(1).min().item() for b in cache.biases)} to "
              f"{max(b.shape[1] for b in cache.biases)} entries; new tokens go on at position {cache.next_position}")
        if options.check and not check(model, cache, options.check, options.tolerance):
            return 1
    except CacheError as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
