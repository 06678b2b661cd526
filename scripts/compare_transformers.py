#!/usr/bin/env python3
"""Speed of kvcompact beside Python transformers: same weights, torch version, dtype and threads, measured in turns in one run.

    scripts/compare_transformers.py [--dtype bfloat16] [--threads 2] [--rounds 3] [--lengths 2048,6144] [--batches 1,8,16]

Needs build/release/model_bench (scripts/build model_bench), models/smollm2-135m-instruct.gguf, and a Python environment with
torch, transformers, accelerate and gguf; --make-env builds one in .deps/compare with the torch version of scripts/setup.

Prefill: one text of n tokens, cache kept, logits of the last token only. Decode: a batch of sequences that share a context of 1,024
tokens, greedy, tokens per second over all sequences. Figures are medians over rounds; the machine may be shared, so read the ratios.
"""
import argparse
import json
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
    subprocess.run([environment / "bin" / "pip", "install", "--quiet", torch, "transformers", "accelerate", "gguf"], check=True)
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
    parser.add_argument("--dtype", default="float32,bfloat16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--lengths", default="2048,6144")
    parser.add_argument("--batches", default="1,8,16")
    parser.add_argument("--make-env", action="store_true")
    args = parser.parse_args()
    if args.make_env:
        return make_environment()
    for path, mend in ((BENCH, "scripts/build model_bench"), (MODEL, "scripts/setup --model")):
        if not path.exists():
            sys.exit(f"error: {path} is missing\n  mend:  {mend}")

    print("| what | dtype | transformers tokens/s | kvcompact tokens/s | ratio |\n|---|---|--:|--:|--:|")
    for dtype in args.dtype.split(","):
        judge = Transformers(dtype, args.threads)
        cases = [("prefill", n) for n in args.lengths.split(",")] + [("decode", b) for b in args.batches.split(",")]
        for kind, size in cases:
            theirs, ours = [], []
            for _ in range(args.rounds):
                theirs.append(judge.prefill(int(size)) if kind == "prefill" else judge.decode(int(size)))
                ours.append(kvcompact(f"{kind}/{dtype}/{size}", args.threads))
            what = f"prefill {size}" if kind == "prefill" else f"decode, batch {size} over {PREFIX_TOKENS}"
            a, b = statistics.median(theirs), statistics.median(ours)
            print(f"| {what} | {dtype} | {a:.0f} | {b:.0f} | {b / a:.2f} |", flush=True)
        version = judge.version
    print(f"\n{version}; {args.threads} threads, median of {args.rounds}")


if __name__ == "__main__":
    main()
