#!/usr/bin/env python3
"""Token ids and speed of kvcompact beside the public Python packages, for tokenizers as you have them.

    scripts/compare_tokenizers.py [--text FILE] [--rounds 3] MODEL...

MODEL is a GGUF file or a folder with tokenizer.json or tokenizer.model. Needs build/release/kvc and text_bench (scripts/build kvc
text_bench) and a Python environment with tokenizers, sentencepiece, protobuf and gguf. A tokenizer.json is judged by `tokenizers`, a
tokenizer.model by `sentencepiece`, a GGUF file by whichever fits its vocabulary.

The text (the varied text of the golden tests, two megabytes, with the spelling of every added token strewn in; or the file that --text
names) is read as data: no BOS, and the spelling of a special token is plain text. Added tokens that are not special are tokens, but for
those spelled as markup (<think>, [INST]). Speed is for one thread and CPU time, of a tokenizer that has met no text yet; best of the rounds, taken in
turns. Exit code 1: some ids differ.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts" / "golden"))

import tokenizer_judges  # noqa: E402
import varied_text  # noqa: E402


def our_ids(model, text_file):
    run = subprocess.run([ROOT / "build" / "release" / "kvc", "tokenize", "--model", model, "--file", text_file, "--json"],
                         capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(run.stderr.strip())
    return json.loads(run.stdout)["ids"]


def our_seconds(model, text_file):
    environment = {**os.environ, "KVC_TOKENIZER_PATHS": str(model), "KVC_TOKENIZER_TEXT": str(text_file)}
    run = subprocess.run([ROOT / "build" / "release" / "text_bench", "--benchmark_filter=^tokenizer_file/cold/", "--benchmark_format=json",
                          "--benchmark_min_time=0.3"], capture_output=True, text=True, env=environment)
    if run.returncode:
        raise SystemExit(run.stderr.strip())
    rows = json.loads(run.stdout)["benchmarks"]
    return rows[-1]["cpu_time"] / 1e3  # milliseconds; the last path is the model's


def strewn(text, judge):
    """The text with the spellings of the judge's added tokens between its lines and inside them."""
    spellings = [s for s in judge.added() if s.strip("\0")]
    if not spellings:
        return text
    lines = text.split("\n")
    for i in range(0, len(lines), max(1, len(lines) // 2000)):
        spelling, half = spellings[i % len(spellings)], len(lines[i]) // 2
        lines[i] = lines[i][:half] + spelling + lines[i][half:]
    return "\n".join(lines)


def their_seconds(judge, text):
    judge = judge.fresh()
    start = time.process_time()
    judge.ids(text)
    return time.process_time() - start


def difference(judge, text, ids, judged):
    """The first ids that differ, with the text before them."""
    at = next((i for i, (a, b) in enumerate(zip(ids, judged)) if a != b), min(len(ids), len(judged)))
    show = lambda some: [f"{i} {judge.piece(i)!r}" for i in some[max(at - 2, 0):at + 4]]
    return f"    first difference at token {at}\n    kvc    {show(ids)}\n    judge  {show(judged)}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--text", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    plain = arguments.text.read_bytes().decode() if arguments.text else varied_text.text(varied_text.recipe(20002, 2 << 20))
    megabytes, different = len(plain.encode()) / 1e6, 0
    with tempfile.TemporaryDirectory() as folder:
        text_file = pathlib.Path(folder) / "text.txt"
        print(f"{megabytes:.2f} MB of text; MB/s, one thread\n")
        print("| tokenizer | judge | ids | equal | kvc | judge | ratio |\n|---|---|---:|---|---:|---:|---:|")
        for model in arguments.models:
            judge = tokenizer_judges.judge_of(model)
            text = plain if arguments.text else strewn(plain, judge)
            text_file.write_bytes(text.encode())
            ids, judged = our_ids(model, text_file), judge.ids(text)
            ours, theirs = [], []
            for _ in range(arguments.rounds):
                ours.append(our_seconds(model, text_file))
                theirs.append(their_seconds(judge, text))
            name = "/".join(pathlib.Path(model).resolve().parts[-2:])
            print(f"| {name} | {judge.package} | {len(judged)} | {'yes' if ids == judged else 'NO'} | {megabytes / min(ours):.2f} | "
                  f"{megabytes / min(theirs):.2f} | {min(theirs) / min(ours):.1f}x |", flush=True)
            if ids != judged:
                different += 1
                print(difference(judge, text, ids, judged))
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
