#!/usr/bin/env python3
"""A grid of evictions by kvcompact beside the same grid by kvpress: same weights, dtype and threads, one document, measured in turns.

    PYTHON scripts/compare_grid.py [--tokens 2400] [--questions 6] [--new-tokens 16] [--threads 2] [--their-cells 3]

PYTHON needs torch, transformers, accelerate, gguf and kvpress (a scratch environment). kvcompact runs the whole grid, six evictors x five
sizes and the full cache, as `kvc run` does; of kvpress `--their-cells` cells are run as its pipeline runs them, one prefill a cell, and the
grid is that many times larger. Printed: the median of each, seconds a cell, and how much of kvcompact's time is neither prefill nor asking.
The machine may be shared: read the ratio.
"""
import argparse
import importlib.metadata
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODEL = ROOT / "models" / "smollm2-135m-instruct.gguf"
# kvcompact's name, kvpress's class
EVICTORS = [("snapkv", "SnapKVPress"), ("tova", "TOVAPress"), ("streaming_llm", "StreamingLLMPress"), ("keydiff", "KeyDiffPress"),
            ("key_norm", "KnormPress"), ("expected_attention", "ExpectedAttentionPress")]
TARGETS = [0.8, 0.6, 0.4, 0.2, 0.1]


def document(tokenizer, n_tokens, n_questions):
    text = json.loads(next(open(ROOT / "datasets/samples/quality_excerpts.jsonl", encoding="utf-8")))["article"]
    while len(tokenizer(text)["input_ids"]) < n_tokens:
        text += "\n\n" + text
    text = tokenizer.decode(tokenizer(text)["input_ids"][:n_tokens], skip_special_tokens=True)
    return text, [f"What is sentence number {i + 3} of the text about?" for i in range(n_questions)]


def ours(kvc, text, questions, options, folder):
    data = pathlib.Path(folder) / "data.jsonl"
    data.write_text(json.dumps({"context": text, "questions": [{"question": q, "answer": "none"} for q in questions]}) + "\n", encoding="utf-8")
    sweep = {"sweep": "grid", "results": f"{folder}/results-{time.time_ns()}", "model": [{"path": str(MODEL), "dtype": "float32"}],
             "dataset": {"dataset": "jsonl", "path": str(data)}, "task": {"task": "exact_match", "max_new_tokens": options.new_tokens},
             "target": TARGETS, "method": ["full_cache"] + [name for name, _ in EVICTORS]}
    config = pathlib.Path(folder) / "grid.json"
    config.write_text(json.dumps(sweep), encoding="utf-8")
    begin = time.monotonic()
    subprocess.run([kvc, "--threads", str(options.threads), "run", str(config), "--skip-proof", "--no-plan", "--quiet"], check=True, stdout=subprocess.DEVNULL)
    wall = time.monotonic() - begin
    stages = {"prefill_s": 0.0, "queries_s": 0.0, "compaction_s": 0.0, "ask_s": 0.0}
    shared = {}
    n_cells = 0
    for file in pathlib.Path(sweep["results"]).glob("*.jsonl"):
        for line in file.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            if record.get("status") != "done":
                sys.exit(f"a cell failed: {record.get('error')}")
            n_cells += 1
            seconds = record["seconds"]
            stages["ask_s"] += seconds["ask_s"]
            stages["compaction_s"] += seconds["compaction_s"]
            shared["prefill_s"] = seconds["prefill_s"]
            shared["queries", str(record["cell"].get("queries"))] = seconds["queries_s"]
            shared["compaction", str(record["cell"]["method"])] = seconds["compaction_shared_s"]
    for key, value in shared.items():
        stages[key if isinstance(key, str) else f"{key[0]}_s"] += value
    return wall, stages, n_cells


class KvPress:
    def __init__(self, threads):
        import kvpress
        import torch
        import transformers

        torch.set_num_threads(threads)
        transformers.utils.logging.disable_progress_bar()
        self.kvpress = kvpress
        self.version = f"kvpress {importlib.metadata.version('kvpress')}, transformers {transformers.__version__}, torch {torch.__version__}"
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(str(MODEL.parent), gguf_file=MODEL.name)
        self.model = transformers.AutoModelForCausalLM.from_pretrained(str(MODEL.parent), gguf_file=MODEL.name, dtype=torch.float32)
        self.model.eval()
        self.pipe = transformers.pipeline("kv-press-text-generation", model=self.model, tokenizer=self.tokenizer)

    def cell(self, text, questions, press, target, new_tokens):
        begin = time.monotonic()
        self.pipe(text, questions=questions, press=getattr(self.kvpress, press)(compression_ratio=1 - target), max_new_tokens=new_tokens)
        return time.monotonic() - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokens", type=int, default=2400)
    parser.add_argument("--questions", type=int, default=6)
    parser.add_argument("--new-tokens", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--their-cells", type=int, default=3)
    parser.add_argument("--kvc", default=str(ROOT / "build" / "release" / "kvc"))
    options = parser.parse_args()
    press = KvPress(options.threads)
    text, questions = document(press.tokenizer, options.tokens, options.questions)
    theirs = []
    with tempfile.TemporaryDirectory() as folder:
        runs = []
        for i in range(max(options.their_cells, 3)):
            if i < 3:
                runs.append(ours(options.kvc, text, questions, options, folder))
            if i < options.their_cells:
                theirs.append(press.cell(text, questions, EVICTORS[i % len(EVICTORS)][1], TARGETS[i % len(TARGETS)], options.new_tokens))
    wall, stages, n_cells = sorted(runs, key=lambda run: run[0])[1]  # the median of three, as of their cells
    whole = statistics.median(theirs) * n_cells
    print(f"{press.version}; {options.threads} threads, float32, {options.tokens} tokens, {options.questions} questions of {options.new_tokens} tokens, {n_cells} cells")
    print("| | seconds of the grid | seconds a cell |\n|---|--:|--:|")
    print(f"| kvcompact | {wall:.1f} | {wall / n_cells:.2f} |")
    print(f"| kvpress ({options.their_cells} cells run) | {whole:.0f} | {whole / n_cells:.2f} |")
    print(f"ratio {whole / wall:.1f}")
    needed = stages["prefill_s"] + stages["ask_s"]
    print("kvcompact by stage: " + ", ".join(f"{name[:-2]} {value:.1f}" for name, value in stages.items()) + f"; the rest {wall - sum(stages.values()):.1f}")
    print(f"all / (prefill + asking) = {wall / needed:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
