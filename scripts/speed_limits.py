#!/usr/bin/env python3
"""Load time, peak memory, tokenizer speed, prefill and decode of the demo model, each beside its limit, as one table.

    scripts/speed_limits.py [--threads N] [--rounds 3] [--dtype float32] [--model models/smollm2-135m-instruct.gguf]

Needs build/release/kvc and model_bench (scripts/build kvc model_bench); the tokenizer's row needs what scripts/compare_tokenizers.py needs
in this Python. Three to five minutes on two quiet cores. The limits, measured in the same rounds:

    load      the weights in the compute dtype, at the rate at which memory is read
    memory    weights in the compute dtype and the largest tensor once more, beside the most anonymous memory (RssAnon) seen every 2 ms;
              the mapped file and what the program has before a model are not counted
    tokenize  the Python package, same text, one thread
    prefill   the matrix products of the same shapes alone
    decode    every weight read once per step, whatever the batch; reading the cache is not in the limit

Medians over rounds.
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
KVC, BENCH = ROOT / "build" / "release" / "kvc", ROOT / "build" / "release" / "model_bench"
BATCHES = (1, 8, 32)
BYTES = {"float32": 4, "bfloat16": 2}


def environment(args):
    return {**os.environ, "OMP_NUM_THREADS": str(args.threads), "KVC_MODEL": str(args.model)}


def fail(run):
    sys.exit(f"error: {' '.join(map(str, run.args))} ended with {run.returncode}: {run.stderr.strip()}")


def start_seconds(args):
    begin = time.perf_counter()
    subprocess.run([KVC, "--version"], check=True, capture_output=True, env=environment(args))
    return time.perf_counter() - begin


def load(args, dtype):
    """(seconds, peak anonymous bytes) of reading the model; the one token read behind it is taken off the seconds."""
    command = [KVC, "generate", "--model", args.model, "--device", "cpu", "--dtype", dtype, "--prompt", "a", "--max-new-tokens", "1"]
    begin, most = time.perf_counter(), 0
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment(args))
    while run.poll() is None:
        try:
            status = pathlib.Path(f"/proc/{run.pid}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            break
        found = re.search(r"RssAnon:\s+(\d+) kB", status)
        most = max(most, int(found.group(1)) * 1024 if found else 0)
        time.sleep(0.002)
    said = run.communicate()[1]
    seconds = time.perf_counter() - begin
    if run.returncode:
        sys.exit(f"error: kvc generate ended with {run.returncode}: {said.strip()}")
    found = re.search(r"prompt \d+ tokens in ([0-9.e+-]+) s; \d+ new in ([0-9.e+-]+) s", said)
    return seconds - sum(map(float, found.groups())) if found else seconds, most


def weights_of(args):
    """(numbers of all tensors, numbers of the largest), as kvc inspect tells them."""
    run = subprocess.run([KVC, "inspect", args.model, "--json"], capture_output=True, text=True)
    if run.returncode:
        fail(run)
    sizes = []
    for tensor in json.loads(run.stdout)["tensors"]:
        size = 1
        for length in tensor["shape"]:
            size *= length
        sizes.append(size)
    return sum(sizes), max(sizes)


def bench(args, dtype):
    """One round: benchmark's short name -> its counters."""
    batches = "|".join(map(str, BATCHES))
    names = f"^(prefill/{dtype}/2048|prefill_limit/{dtype}|decode/{dtype}/({batches})/1024|decode_limit/{dtype})(/|$)"
    run = subprocess.run([BENCH, f"--benchmark_filter={names}", "--benchmark_format=json", "--benchmark_min_time=0.3"], capture_output=True,
                         text=True, env=environment(args))
    if run.returncode:
        fail(run)
    return {row["name"].removesuffix("/real_time"): row for row in json.loads(run.stdout)["benchmarks"]}


def tokenizer_row(args):
    run = subprocess.run([sys.executable, ROOT / "scripts" / "compare_tokenizers.py", "--rounds", str(args.rounds), args.model],
                         capture_output=True, text=True)
    for line in run.stdout.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 7 and cells[3] in ("yes", "NO"):
            ids = "" if cells[3] == "yes" else "; IDS DIFFER"
            return f"| tokenize, 1 thread | MB/s | {cells[4]} | {cells[5]} ({cells[1]}{ids}) | {cells[6]} |"
    reason = (run.stderr.strip().splitlines() or ["no output"])[-1]
    return f"| tokenize, 1 thread | MB/s | not measured: {reason} | | |"


def row(what, unit, got, limit, places=1):
    print(f"| {what} | {unit} | {got:.{places}f} | {limit:.{places}f} | {100 * got / limit:.0f} % |", flush=True)


def dtype_rows(args, dtype):
    numbers, largest = weights_of(args)
    start = statistics.median(start_seconds(args) for _ in range(args.rounds))
    loads, rounds = [], []
    for _ in range(args.rounds):
        loads.append(load(args, dtype))
        rounds.append(bench(args, dtype))
    middle = lambda name, counter: statistics.median(each[name][counter] for each in rounds)
    rate = middle(f"decode_limit/{dtype}", "bytes_per_s")
    row(f"load, {dtype}", "s", statistics.median(s for s, _ in loads) - start, numbers * BYTES[dtype] / rate, 2)
    row(f"peak memory of loading, {dtype}", "MiB", max(b for _, b in loads) / 2**20, (numbers + largest) * BYTES[dtype] / 2**20, 0)
    row(f"prefill 2048, {dtype}", "tokens/s", middle(f"prefill/{dtype}/2048", "tokens_per_s"),
        middle(f"prefill_limit/{dtype}", "tokens_per_s"))
    for batch in BATCHES:
        row(f"decode, batch {batch} over 1024, {dtype}", "tokens/s", middle(f"decode/{dtype}/{batch}/1024", "tokens_per_s"),
            batch * middle(f"decode_limit/{dtype}", "steps_per_s"))
    print(f"\nMemory read at {rate / 1e9:.1f} GB/s.", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="float32", help="float32, bfloat16, or both with a comma")
    parser.add_argument("--model", type=pathlib.Path, default=ROOT / "models" / "smollm2-135m-instruct.gguf")
    args = parser.parse_args()
    args.model = args.model.resolve()
    for path, mend in ((KVC, "scripts/build kvc"), (BENCH, "scripts/build model_bench"), (args.model, "scripts/setup --model")):
        if not path.exists():
            sys.exit(f"error: {path} is missing\n  mend:  {mend}")
    print("| what | unit | kvcompact | limit | of it |\n|---|---|--:|--:|--:|", flush=True)
    print(tokenizer_row(args), flush=True)
    for dtype in args.dtype.split(","):
        dtype_rows(args, dtype)
    print(f"{args.threads} threads, medians of {args.rounds} rounds.")


if __name__ == "__main__":
    main()
