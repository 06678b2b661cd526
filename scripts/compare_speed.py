#!/usr/bin/env python3
"""Speed of kvcompact beside transformers and llama.cpp: same weights, dtype and threads, measured in turns in one run.

    scripts/compare_speed.py [--with transformers,llama_cpp] [--dtype bfloat16] [--threads 2] [--rounds 3] [--lengths 2048,6144]
                             [--batches 1,8,32]

Needs build/release/model_bench (scripts/build model_bench), models/smollm2-135m-instruct.gguf, and a Python environment with
torch, transformers, accelerate, gguf and llama-cpp-python; --make-env builds one in .deps/compare with the torch version of scripts/setup
(llama-cpp-python is compiled for this processor, which takes a while and needs cmake and g++).

Prefill: one text of n tokens, cache kept, logits of the last token only. Decode: a batch of sequences that share a context of 1,024
tokens, greedy, tokens per second over all sequences. llama.cpp gets the weights as a GGUF file of the same dtype and holds its cache in
float16, as it does by default; it has no float32 one with fused attention. Figures are medians over rounds; the machine may be shared, so
read the ratios.
"""
import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODEL = ROOT / "models" / "smollm2-135m-instruct.gguf"
BENCH = ROOT / "build" / "release" / "model_bench"
PREFIX_TOKENS = 1024
STEPS = 16


def make_environment():
    setup = (ROOT / "scripts" / "setup").read_text(encoding="utf-8")
    torch = re.search(r"KVC_TORCH:-(torch==[0-9.]+)", setup).group(1)
    environment = ROOT / ".deps" / "compare"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    subprocess.run([environment / "bin" / "pip", "install", "--quiet", torch, "transformers", "accelerate", "gguf", "llama-cpp-python"], check=True,
                   env={**os.environ, "CMAKE_ARGS": "-DGGML_NATIVE=ON"})
    print(f"made; now run: {environment}/bin/python {' '.join(a for a in sys.argv if a != '--make-env')}")


class Transformers:
    def __init__(self, dtype, threads):
        import torch
        import transformers

        self.torch = torch
        torch.set_num_threads(threads)
        self.version = f"transformers {transformers.__version__}, torch {torch.__version__}"
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            str(MODEL.parent), gguf_file=MODEL.name, dtype=getattr(torch, dtype))
        self.model.eval()
        self.vocab_size = self.model.config.vocab_size

    def tokens(self, n):
        generator = self.torch.Generator().manual_seed(1)
        return self.torch.randint(100, self.vocab_size - 100, (1, n), generator=generator)

    def prefill(self, n):
        with self.torch.inference_mode():
            ids = self.tokens(n)
            begin = time.perf_counter()
            self.model(ids, use_cache=True, logits_to_keep=1)
            return n / (time.perf_counter() - begin)

    def decode(self, batch):
        with self.torch.inference_mode():
            out = self.model(self.tokens(PREFIX_TOKENS), use_cache=True, logits_to_keep=1)
            cache = out.past_key_values
            cache.batch_repeat_interleave(batch)
            ids = out.logits[:, -1:].argmax(-1).repeat(batch, 1)
            step = self.model(ids, past_key_values=cache, use_cache=True)  # warm-up
            begin = time.perf_counter()
            for _ in range(STEPS):
                step = self.model(step.logits[:, -1:].argmax(-1), past_key_values=cache, use_cache=True)
            return batch * STEPS / (time.perf_counter() - begin)


def converted(dtype):
    """The demo model with its matrices in `dtype`, made once; norms stay float32."""
    import gguf
    import numpy

    path = ROOT / ".deps" / f"{MODEL.stem}.{dtype}.gguf"
    if path.exists():
        return path
    kind = {"float32": gguf.GGMLQuantizationType.F32, "bfloat16": gguf.GGMLQuantizationType.BF16}[dtype]
    reader = gguf.GGUFReader(MODEL)
    writer = gguf.GGUFWriter(f"{path}.part", reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type", "general.quantization_version"):
            continue
        element = field.types[1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), field.types[0], sub_type=element)
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32)
        if values.ndim > 1 and dtype != "float32":
            writer.add_tensor(tensor.name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(tensor.name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(f"{path}.part", path)
    return path


class LlamaCpp:
    def __init__(self, dtype, threads):
        import llama_cpp

        self.api = llama_cpp
        self.threads = threads
        self.version = f"llama-cpp-python {llama_cpp.__version__}"
        silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
        self.keep = silent
        llama_cpp.llama_log_set(silent, None)
        llama_cpp.llama_backend_init()
        parameters = llama_cpp.llama_model_default_params()
        self.model = llama_cpp.llama_model_load_from_file(str(converted(dtype)).encode(), parameters)
        self.vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))

    def context(self, n_tokens, batch):
        parameters = self.api.llama_context_default_params()
        parameters.n_ctx = n_tokens
        parameters.n_batch = 2048
        parameters.n_ubatch = 512
        parameters.n_seq_max = batch
        parameters.n_threads = parameters.n_threads_batch = self.threads
        parameters.kv_unified = True
        return self.api.llama_init_from_model(self.model, parameters)

    def decode_rows(self, context, rows):
        """rows: (token, position, sequence, logits wanted)."""
        batch = self.api.llama_batch_init(len(rows), 0, 1)
        batch.n_tokens = len(rows)
        for i, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, position, 1, wanted
            batch.seq_id[i][0] = sequence
        if self.api.llama_decode(context, batch) != 0:
            sys.exit("error: llama_decode failed")
        self.api.llama_batch_free(batch)

    def read(self, context, n):
        for first in range(0, n, 2048):
            last = min(n, first + 2048)
            self.decode_rows(context, [(1000 + i * 7919 % 40000, i, 0, i == n - 1) for i in range(first, last)])
        self.api.llama_synchronize(context)

    def prefill(self, n):
        context = self.context(n + 64, 1)
        begin = time.perf_counter()
        self.read(context, n)
        speed = n / (time.perf_counter() - begin)
        self.api.llama_free(context)
        return speed

    def decode(self, batch):
        import numpy

        context = self.context(PREFIX_TOKENS + (STEPS + 1) * batch + 64, batch)
        self.read(context, PREFIX_TOKENS)
        memory = self.api.llama_get_memory(context)
        for sequence in range(1, batch):
            self.api.llama_memory_seq_cp(memory, 0, sequence, -1, -1)
        tokens = [1000] * batch
        for step in range(STEPS + 1):
            if step == 1:
                begin = time.perf_counter()  # the first is for warming up
            self.decode_rows(context, [(tokens[b], PREFIX_TOKENS + step, b, True) for b in range(batch)])
            for b in range(batch):
                logits = numpy.ctypeslib.as_array(self.api.llama_get_logits_ith(context, b), (self.vocab_size,))
                tokens[b] = int(logits.argmax())
        speed = batch * STEPS / (time.perf_counter() - begin)
        self.api.llama_free(context)
        return speed


JUDGES = {"transformers": Transformers, "llama_cpp": LlamaCpp}


def kvcompact(name, threads):
    """tokens/s of one benchmark, e.g. prefill/bfloat16/2048."""
    out = subprocess.run(
        [BENCH, f"--benchmark_filter=^{name}(/|$)", "--benchmark_format=json", "--benchmark_min_time=0.01"],
        check=True, capture_output=True, text=True, env={"OMP_NUM_THREADS": str(threads), "KVC_MODEL": str(MODEL)})
    rows = [b for b in json.loads(out.stdout)["benchmarks"] if "tokens_per_s" in b]
    if not rows:
        sys.exit(f"error: {BENCH} has no benchmark named {name}")
    return rows[0]["tokens_per_s"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--with", dest="judges", default="transformers,llama_cpp")
    parser.add_argument("--dtype", default="float32,bfloat16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--lengths", default="2048,6144")
    parser.add_argument("--batches", default="1,8,32")
    parser.add_argument("--make-env", action="store_true")
    args = parser.parse_args()
    if args.make_env:
        return make_environment()
    for path, mend in ((BENCH, "scripts/build model_bench"), (MODEL, "scripts/setup --model")):
        if not path.exists():
            sys.exit(f"error: {path} is missing\n  mend:  {mend}")

    print("| what | dtype | beside | its tokens/s | kvcompact tokens/s | ratio |\n|---|---|---|--:|--:|--:|")
    versions = []
    for dtype in args.dtype.split(","):
        for name in args.judges.split(","):
            judge = JUDGES[name](dtype, args.threads)
            versions.append(judge.version)
            cases = [("prefill", n) for n in args.lengths.split(",")] + [("decode", b) for b in args.batches.split(",")]
            for kind, size in cases:
                theirs, ours = [], []
                for _ in range(args.rounds):
                    theirs.append(judge.prefill(int(size)) if kind == "prefill" else judge.decode(int(size)))
                    ours.append(kvcompact(f"{kind}/{dtype}/{size}", args.threads))
                what = f"prefill {size}" if kind == "prefill" else f"decode, batch {size} over {PREFIX_TOKENS}"
                a, b = statistics.median(theirs), statistics.median(ours)
                print(f"| {what} | {dtype} | {name} | {a:.0f} | {b:.0f} | {b / a:.2f} |", flush=True)
            del judge
    print(f"\n{'; '.join(dict.fromkeys(versions))}; {args.threads} threads, median of {args.rounds}")


if __name__ == "__main__":
    main()
