#!/usr/bin/env python3
"""Golden counts, depths and lengths of RULER's published generator (arXiv:2404.06654), for datasets/ruler_published_test.cpp.

    scripts/golden/ruler.py CHECKOUT > harness/testing/golden/ruler.json       needs numpy, scipy, wonderwords

CHECKOUT is a checkout of the published code (github.com/NVIDIA/RULER); its scripts of scripts/data/synthetic are run as they are, with
their published settings, on essays and a SQuAD file that this script makes up, and with stand-ins for three modules: the tokenizer
splits at white space, sentences end at full stops, manifests are JSON lines. What is counted is read from the texts that come out; no
sentence of theirs is kept.
"""
import collections
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

SAMPLES = 200
SCRIPTS = ["niah", "variable_tracking", "common_words_extraction", "freq_words_extraction", "qa"]
NIAH = {  # the published settings
    "niah_single_1": ("repeat", "words", "numbers", 1, 1, 1),
    "niah_single_2": ("essay", "words", "numbers", 1, 1, 1),
    "niah_single_3": ("essay", "words", "uuids", 1, 1, 1),
    "niah_multikey_1": ("essay", "words", "numbers", 4, 1, 1),
    "niah_multikey_2": ("needle", "words", "numbers", 1, 1, 1),
    "niah_multikey_3": ("needle", "uuids", "uuids", 1, 1, 1),
    "niah_multivalue": ("essay", "words", "numbers", 1, 4, 1),
    "niah_multiquery": ("essay", "words", "numbers", 1, 1, 4),
}
STAND_INS = {
    "tokenizer.py": "class Words:\n    def text_to_tokens(self, text):\n        return text.split()\n\n\n"
                    "def select_tokenizer(kind, path):\n    return Words()\n",
    "nltk/__init__.py": "",
    "nltk/tokenize.py": "import re\n\n\ndef sent_tokenize(text):\n    return re.split(r'(?<=[.]) ', text)\n",
    "nemo/collections/asr/parts/utils/manifest_utils.py":
        "import json\n\n\ndef write_manifest(path, rows):\n    with open(path, 'w', encoding='utf-8') as f:\n"
        "        f.writelines(json.dumps(row) + '\\n' for row in rows)\n\n\ndef read_manifest(path):\n    raise NotImplementedError\n",
}


def essays():
    return " ".join(f"Sentence {i} of these essays says nothing of use." for i in range(4000))


def squad():
    """Six articles of twelve paragraphs with one question each; words A3P7 name article and paragraph."""
    def paragraph(a, p):
        context = f"A{a}P{p} " + " ".join(f"word{(a * 31 + p * 7 + i) % 97}" for i in range(39))
        return {"context": context, "qas": [{"question": f"Which is A{a}P{p}?", "is_impossible": False,
                                             "answers": [{"text": f"A{a}P{p}"}]}]}
    return {"data": [{"paragraphs": [paragraph(a, p) for p in range(12)]} for a in range(6)]}


class Generator:
    def __init__(self, checkout, folder):
        self.folder = folder
        self.code = folder / "data" / "synthetic"
        shutil.copytree(checkout / "scripts" / "data" / "synthetic", self.code)
        (self.code / "json").mkdir(exist_ok=True)
        (self.code / "json" / "PaulGrahamEssays.json").write_text(json.dumps({"text": essays()}))
        (self.code / "json" / "squad.json").write_text(json.dumps(squad()))
        for name, text in STAND_INS.items():
            path = folder / "stand_ins" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        sys.path.insert(0, str(self.code))
        import constants
        self.tasks = constants.TASKS

    def run(self, kind, words, **settings):
        """The texts of SAMPLES documents: [{input, outputs, length}]."""
        script = kind if kind in SCRIPTS else "niah"
        task = self.tasks[script]
        template = "[INST] " + task["template"] + " [/INST]" + task["answer_prefix"]
        arguments = {"save_dir": self.folder, "save_name": "out", "tokenizer_path": "none", "max_seq_length": words,
                     "tokens_to_generate": task["tokens_to_generate"], "num_samples": settings.pop("samples", SAMPLES),
                     "template": template, **settings}
        command = [sys.executable, str(self.code / f"{script}.py")]
        command += [part for name, value in arguments.items() for part in (f"--{name}", str(value))]
        (self.folder / "out").mkdir(exist_ok=True)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self.code,
                       env={"PYTHONPATH": str(self.folder / "stand_ins"), "PATH": "/usr/bin:/bin"})
        return [json.loads(line) for line in open(self.folder / "out" / "validation.jsonl", encoding="utf-8")]


def one(values, what):
    """The single value of all documents."""
    values = set(values)
    assert len(values) == 1, (what, values)
    return values.pop()


def deciles(depths):
    counts = [0] * 10
    for depth in depths:
        counts[min(9, int(depth * 10))] += 1
    return counts


def lengths(rows, words):
    return {"max_seq_length": words, "longest": max(row["length"] for row in rows), "shortest": min(row["length"] for row in rows)}


def niah(generator, task):
    haystack, keys, values, k, v, q = NIAH[task]
    words = 2000
    rows = generator.run(task, words, type_haystack=haystack, type_needle_k=keys, type_needle_v=values, num_needle_k=k, num_needle_v=v,
                         num_needle_q=q)
    statement = re.compile(r"One of the special magic \w+ for (.+?) is: (\S+)\.")
    depths, counted = [], collections.defaultdict(list)
    for row in rows:
        context = row["input"][row["input"].index("\n") + 1:row["input"].rindex("\n")]
        needles = statement.findall(context)
        counted["statements"].append(len(needles))
        counted["keys"].append(len({key for key, _ in needles}))
        counted["references"].append(len(row["outputs"]))
        counted["value_length"].append(one(map(len, row["outputs"]), "value"))
        bare = statement.sub("", context)
        counted["size"].append(len(needles) - 1 if haystack == "needle" else
                               len(re.findall("Here we go", bare)) if haystack == "repeat" else len(bare.split()))
        depths += [context.index(f"is: {value}.") / len(context) for value in row["outputs"]]
    result = {name: one(list_, name) for name, list_ in counted.items() if name != "keys" or haystack != "needle"}
    return {**result, "depths": deciles(depths), **lengths(rows, words)}


def vt(generator):
    words = 2000
    rows = generator.run("variable_tracking", words)
    depths, counted = [], collections.defaultdict(list)
    for row in rows:
        start = row["input"].rindex("Memorize and track")
        example, text = row["input"][:start], row["input"][start:]
        for part, body in (("example_", example), ("", text)):
            names = re.findall(r"VAR (\w+) = ", body)
            counted[part + "names"].append(len(names))
            counted[part + "letters"].append(one(map(len, names), "letters"))
            counted[part + "size"].append(body.count("Here we go"))
        context = text[:text.index("\nQuestion:")]
        depths += [context.index(f"VAR {name} = ") / len(context) for name in row["outputs"]]
        assert re.findall(r"VAR (\w+) = ", text) == row["outputs"]
        counted["example_words"].append(len(example.split()))
        counted["value_length"].append(len(re.search(r"VAR \w+ = (\d+)", text).group(1)))
    return {**{name: one(list_, name) for name, list_ in counted.items()}, "depths": deciles(depths), **lengths(rows, words)}


def cwe(generator, words):
    rows = generator.run("common_words_extraction", words, samples=40)
    counted = collections.defaultdict(list)
    for row in rows:
        lists = [part.split("\nQuestion")[0] for part in row["input"].split("appear most often.\n")[1:]]
        for part, body in zip(("example_", ""), lists):
            times = collections.Counter(collections.Counter(re.findall(r"\d+\. ([^0-9]+?)(?= \d+\.|$)", body)).values())
            counted[part + "size"].append(sum(times.values()))
            counted[part + "times"].append(tuple(sorted(times.items())))
        counted["references"].append(len(row["outputs"]))
    result = {name: one(list_, name) for name, list_ in counted.items()}
    # {times a word stands: words}
    return {name: dict((str(n), count) for n, count in value) if isinstance(value, tuple) else value for name, value in result.items()} | \
        lengths(rows, words)


def fwe(generator):
    words = 3000
    rows = generator.run("freq_words_extraction", words, samples=20)
    counts = []
    for row in rows:
        body = row["input"][row["input"].index("coded words. ") + len("coded words. "):row["input"].index("\nQuestion")]
        of_word = collections.Counter(body.split())
        top = [row["outputs"][i] for i in range(3)]
        counts.append((of_word["..."], *(of_word[word] for word in top), *sorted(
            (n for word, n in of_word.items() if word != "..." and word not in top), reverse=True)))
    return {"by_rank": list(one(counts, "counts")), "references": 3, **lengths(rows, words)}


def qa(generator, words):
    rows = generator.run("qa", words, dataset="squad", samples=72)
    counted = collections.defaultdict(list)
    for row in rows:
        names = re.findall(r"Document \d+:\nA(\d+)P\d+", row["input"])
        own = row["outputs"][0][1:].split("P")[0]
        counted["passages"].append(len(names))
        counted["of_own_article"].append(names.count(own))
        counted["place"].append(re.findall(r"Document \d+:\n(A\d+P\d+)", row["input"]).index(row["outputs"][0]))
    return {**{name: one(list_, name) for name, list_ in counted.items()}, **lengths(rows, words)}


def main():
    with tempfile.TemporaryDirectory() as folder:
        generator = Generator(pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(folder))
        tasks = {task: niah(generator, task) for task in NIAH}
        tasks["vt"] = vt(generator)
        tasks["cwe"] = [cwe(generator, 2000), cwe(generator, 9000)]
        tasks["fwe"] = fwe(generator)
        tasks["qa"] = [qa(generator, 600), qa(generator, 1400)]
    lines = ",\n".join(f"  {json.dumps(task)}: {json.dumps(value)}" for task, value in tasks.items())
    print('{\n "made_by": "scripts/golden/ruler.py",\n "samples": %d,\n "tasks": {\n%s\n }\n}' % (SAMPLES, lines))


if __name__ == "__main__":
    main()
