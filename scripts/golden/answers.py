#!/usr/bin/env python3
"""Makes harness/testing/golden/answers.json: real model answers and the option that each names.

  python scripts/golden/answers.py REFERENCE_ANSWERS_CACHE [--rates]

REFERENCE_ANSWERS_CACHE is `data/reference_answers_cache` of github.com/adamzweiger/compaction (MIT licence). The rules of
harness/tasks/judging/paper_choice.h are written here a second time, with regular expressions. --rates prints the share of answers that name
an option, for each model and data set, and writes nothing.
"""
import collections
import json
import pathlib
import platform
import re
import sys

OUTPUT = pathlib.Path(__file__).resolve().parents[2] / "harness/testing/golden/answers.json"
ORIGIN = "github.com/adamzweiger/compaction, data/reference_answers_cache, commit 2e59cc89, MIT licence"
MAX_BYTES = 90_000
LONGEST = 900
# Answers of unusual form, always taken when they are short enough.
SPECIAL = {"32665_VRYQXG3Y_2", "32665_VRYQXG3Y_9", "22218_WHLS3NE4_9", "61467_TASABS87_3", "62085_C1SL2YBE_6", "patient_02_q3"}


def parse(text, n_options):
    """Index of the option from 0, or None."""
    letters = "abcdefghijklmnopqrstuvwxyz"[:n_options]
    if "</think>" in text:
        answer = text.split("</think>")[-1].strip()
    elif "<think>" in text:
        return None
    else:
        lines = [line for line in text.split("\n") if line.strip()]
        answer = lines[-1].strip() if lines else ""
    for pattern in ("answer:", "answer is", "correct option is"):
        _, found, rest = answer.lower().rpartition(pattern)
        rest = rest.strip().lstrip(":").strip().rstrip(".").strip().replace("*", "")
        if found and rest and rest[0] in letters:
            return letters.index(rest[0])
    first = answer.lower().split(".")[0].strip().replace("*", "")
    if len(first) == 1 and first in letters:
        return letters.index(first)
    capitals = re.findall(rf"(?<![^\W\d_])[{letters.upper()}](?![^\W\d_])", answer)
    return letters.index(capitals[-1].lower()) if capitals else None


def load(folder):
    for path in sorted(pathlib.Path(folder).glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        dataset = "LongHealth" if content["article_id"].startswith("longhealth") else "QuALITY"
        size = re.search(r"patients_(\d+)-(\d+)", path.name)
        group = "QuALITY" if dataset == "QuALITY" else f"LongHealth{int(size[2]) - int(size[1]) + 1}"
        for generation in content["generations"]:
            yield content["model_name"], group, generation["question_id"], generation["generated_text"]


def print_rates(answers):
    counts = collections.defaultdict(collections.Counter)
    for model, group, _, text in answers:
        n_options = 4 if group == "QuALITY" else 5
        row = counts[model, group]
        row["all"] += 1
        row["parsed"] += parse(text, n_options) is not None
        row["parsed_as_5"] += parse(text, 5) is not None
        row["unclosed"] += "<think>" in text and "</think>" not in text
    for (model, group), row in sorted(counts.items()):
        print(f"{model:40} {group:12} {row['parsed']:5} of {row['all']:5} = {100 * row['parsed'] / row['all']:.2f} %"
              f"  (5 letters {100 * row['parsed_as_5'] / row['all']:.2f} %), unclosed {row['unclosed']}")


def sample(answers):
    """Special ones, answers that name nothing, and every n-th of each model."""
    chosen, size, taken = [], 0, collections.Counter()
    short = [a for a in answers if len(a[3]) <= LONGEST]
    rank = lambda a: 0 if a[2] in SPECIAL else 1 if parse(a[3], 5) is None else 2
    for i, (model, group, question_id, text) in sorted(enumerate(short), key=lambda item: (rank(item[1]), item[0] * 7919 % len(short))):
        kind = (model, group, rank((model, group, question_id, text)))
        entry = {"model": model, "question_id": question_id, "text": text, "of_4": parse(text, 4), "of_5": parse(text, 5)}
        n_bytes = len(json.dumps(entry, ensure_ascii=False).encode()) + 4
        if taken[kind] >= 14 or size + n_bytes > MAX_BYTES:
            continue
        taken[kind] += 1
        size += n_bytes
        chosen.append(entry)
    return sorted(chosen, key=lambda a: (a["model"], a["question_id"], a["text"]))


def main():
    arguments = [a for a in sys.argv[1:] if a != "--rates"]
    if len(arguments) != 1:
        sys.exit(__doc__)
    answers = list(load(arguments[0]))
    if "--rates" in sys.argv:
        print_rates(answers)
        return
    golden = {"command": "python scripts/golden/answers.py REFERENCE_ANSWERS_CACHE",
              "versions": {"python": platform.python_version()}, "origin": ORIGIN, "answers": sample(answers)}
    lines = ",\n  ".join(json.dumps(a, ensure_ascii=False) for a in golden.pop("answers"))
    head = json.dumps(golden, indent=1, ensure_ascii=False)[:-2]
    OUTPUT.write_text(f'{head},\n "answers": [\n  {lines}\n ]\n}}\n', encoding="utf-8")
    print(f"{OUTPUT.name}: {OUTPUT.stat().st_size} bytes, {lines.count(chr(10)) + 1} answers")


if __name__ == "__main__":
    main()
