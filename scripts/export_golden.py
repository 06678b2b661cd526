#!/usr/bin/env python3
"""Makes the golden files of harness/testing/golden anew, from the public Python packages that the tests trust.

    scripts/export_golden.py --make-env             an environment with those packages, in .deps/golden
    .deps/golden/bin/python scripts/export_golden.py [TOPIC...] [--quality FILE] [--answers FOLDER] [--released FOLDER]

Without a topic, all are made whose sources are at hand; the others are named, with what they lack. Each topic is a script of
scripts/golden, which can be run alone and says what it does; versions and commands stand inside the files. Tests read the files and need
no Python. `git diff --stat harness/testing/golden` then shows what has changed.
"""
import argparse
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
GOLDEN = "harness/testing/golden"
MODEL = "models/smollm2-135m-instruct.gguf"
# topic: (arguments, file that standard output goes to, "" where the script writes its files itself). {names} are options of this script;
# a topic needs all that it names, except those in brackets.
TOPICS = {
    "answers": (["{answers}"], ""),
    "attention_matching": ([], f"{GOLDEN}/attention_matching.json"),
    "authors_layer_picks": (["{defensive_kv}", "{tri_attention}"], f"{GOLDEN}/authors_layer_picks.json"),
    "authors_picks": (["{r_kv}"], f"{GOLDEN}/authors_picks.json"),
    "chat": ([], ""),
    "fuzz_seeds": ([], ""),
    "gguf_blocks": ([MODEL], f"{GOLDEN}/gguf_blocks.json"),
    "intervals": ([], f"{GOLDEN}/intervals.json"),
    "kvpress_picks": ([], f"{GOLDEN}/kvpress_picks.json"),
    "layer_picks": ([], f"{GOLDEN}/layer_picks.json"),
    "logits": ([MODEL, "datasets/samples/quality.jsonl", "20002"], f"{GOLDEN}/logits.json"),
    "published_scores": ([], f"{GOLDEN}/published_scores.json"),
    "rope": ([], f"{GOLDEN}/rope.json"),
    "ruler": (["{ruler}"], f"{GOLDEN}/ruler.json"),
    "statistics": ([], f"{GOLDEN}/statistics.json"),
    "tiny_models": ([f"{GOLDEN}/tiny_models"], ""),
    "tokenizer_ids": (["[--released={released}]", f"{GOLDEN}/tokenizers"], ""),
    "tokens": (["--quality={quality}"], f"{GOLDEN}/tokens.json"),
}
SOURCES = {
    "quality": "QuALITY v1.0.1, dev, html-stripped, as released (JSON lines)",
    "answers": "stored model answers, see scripts/golden/answers.py",
    "defensive_kv": "a checkout of github.com/FFY0/DefensiveKV, see scripts/golden/authors_layer_picks.py",
    "tri_attention": "a checkout of github.com/WeianMao/triattention, see scripts/golden/authors_layer_picks.py",
    "r_kv": "a checkout of github.com/Zefan-Cai/R-KV, see scripts/golden/authors_picks.py",
    "ruler": "a checkout of github.com/NVIDIA/RULER, see scripts/golden/ruler.py",
    "released": "tokenizers that may not be passed on, see scripts/golden/tokenizer_ids.py",
}
PACKAGES = ["transformers", "tokenizers", "accelerate", "gguf", "sentencepiece", "protobuf", "jinja2", "numpy", "scipy", "statsmodels",
            "kvpress", "safetensors", "rouge", "rouge-score", "fuzzywuzzy", "wonderwords"]


def make_environment():
    setup = (ROOT / "scripts" / "setup").read_text(encoding="utf-8")
    torch = re.search(r"KVC_TORCH:-(torch==[0-9.]+)", setup).group(1)
    environment = ROOT / ".deps" / "golden"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    subprocess.run([environment / "bin" / "pip", "install", "--quiet", torch, *PACKAGES], check=True)
    print(f"made; now run: {environment}/bin/python scripts/export_golden.py")


def command(topic, sources):
    """The arguments of the topic's script, or the name of a source that is missing."""
    arguments = []
    for argument in TOPICS[topic][0]:
        optional = argument.startswith("[")
        wanted = re.findall(r"{(\w+)}", argument.strip("[]"))
        missing = [name for name in wanted if not sources[name]]
        if missing and not optional:
            return None, missing[0]
        if not missing:
            arguments.append(argument.strip("[]").format(**sources))
    return [sys.executable, f"scripts/golden/{topic}.py", *arguments], None


def make(topic, line):
    output = TOPICS[topic][1]
    print(f"{topic}: {' '.join(line[1:])}{' > ' + output if output else ''}", file=sys.stderr, flush=True)
    if not output:
        return subprocess.run(line, cwd=ROOT).returncode == 0
    part = ROOT / f"{output}.part"
    with open(part, "wb") as out:
        made = subprocess.run(line, cwd=ROOT, stdout=out).returncode == 0
    if made:
        part.replace(ROOT / output)
    else:
        part.unlink()
    return made


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("topics", nargs="*", metavar="TOPIC", help=", ".join(TOPICS))
    for name, what in SOURCES.items():
        parser.add_argument(f"--{name}", help=what)
    parser.add_argument("--make-env", action="store_true")
    args = parser.parse_args()
    if args.make_env:
        return make_environment()
    unknown = [topic for topic in args.topics if topic not in TOPICS]
    if unknown:
        parser.error(f"unknown topic '{unknown[0]}'; known: {', '.join(TOPICS)}")
    failed = []
    for topic in args.topics or TOPICS:
        line, missing = command(topic, {name: getattr(args, name) for name in SOURCES})
        if missing:
            print(f"{topic}: not made, needs --{missing} ({SOURCES[missing]})", file=sys.stderr)
            if args.topics:
                failed.append(topic)
        elif not make(topic, line):
            failed.append(topic)
    if failed:
        sys.exit(f"error: not made: {', '.join(failed)}")


if __name__ == "__main__":
    main()
