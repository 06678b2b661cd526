#!/usr/bin/env python3
"""Makes harness/testing/golden/published_scores.json: pairs of texts and what public Python packages score them.

  python scripts/golden/published_scores.py > harness/testing/golden/published_scores.json

Packages: rouge (rouge_l), rouge-score (rouge_l_sum), fuzzywuzzy without python-Levenshtein (code_edit, hence difflib). The word and
character F1, numbers and classes are written here a second time, from the descriptions of LongBench (arXiv:2308.14508) and InfiniteBench
(arXiv:2402.13718). Texts are our own and drawn by seed.
"""
import json
import random
import re
import string
import sys
import warnings
from collections import Counter
from importlib.metadata import version

warnings.simplefilter("ignore")
from fuzzywuzzy import fuzz  # noqa: E402
from rouge import Rouge  # noqa: E402
from rouge_score import rouge_scorer  # noqa: E402

WORDS = "the a an mill river sold keys to Anna in 1842 and bridge was old, new. burned again by winter; It rained The".split(" ")
CODE = ["    return self.price * count\n", "for (int i = 0; i < n; ++i) {\n", "x = foo(bar, baz=3)\n", "def total(items, tax=0.2):\n", "# note\n", "// note\n", "```python\n", "\n"]
CHINESE = "磨坊在一八四二年卖给了安娜。桥又烧毁了，冬天很冷！“钥匙”在哪里？"
MARKS = set("！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､、〃》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿–—‘’‛“”„‟…‧﹏.") | set(string.punctuation)


def f1(answer, reference):
    common = sum((Counter(answer) & Counter(reference)).values())
    if common == 0:
        return 0.0
    precision, recall = common / len(answer), common / len(reference)
    return 2 * precision * recall / (precision + recall)


def words(text):
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def characters(text):
    return [c for c in "".join(text.split()).lower() if c not in MARKS]


def rouge(answer, reference, part):
    try:
        return Rouge().get_scores([answer], [reference], avg=True)["rouge-l"][part]
    except (ValueError, RecursionError):
        return 0.0


def rouge_sum(answer, reference):
    return rouge_scorer.RougeScorer(["rougeLsum"], use_stemmer=False).score(reference, answer)["rougeLsum"].fmeasure


def code(answer, reference):
    kept = [line for line in answer.lstrip("\n").split("\n") if not any(mark in line for mark in ("`", "#", "//"))]
    return fuzz.ratio(kept[0] if kept else "", reference) / 100


def share(answer, number):
    numbers = re.findall(r"\d+", answer)
    return numbers.count(number) / len(numbers) if numbers else 0.0


def pairs(rng):
    """(answer, reference)"""
    fixed = [("", ""), ("", "mill"), ("mill", ""), ("...", "mill."), ("The mill.", "a mill"), ("mill. . sold", "mill . sold"),
             ("Mill mill mill", "mill"), ("a\u2014b the", "b"), ("It\u2019s the \u00c4nderung", "its \u00e4nderung"), ("x\ny\nz", "z\ny\nx"),
             ("the the the", "the"), ("1,842", "1842"), ("river  \t sold", "river sold"), ("a", "the")]
    yield from fixed
    for n in range(60):
        def text(most):
            return "".join(rng.choice(WORDS) + rng.choice([" "] * 8 + [". ", "\n", ".\n"]) for _ in range(rng.randrange(1, most)))
        reference = text(rng.choice([6, 25, 60]))
        answer = text(rng.choice([6, 25, 60])) if n % 3 else " ".join(w for w in reference.split(" ") if rng.random() < 0.7)
        yield answer, reference


def main():
    rng = random.Random(7)
    cases = []

    def add(rule, answer, reference, score, **more):
        cases.append({"rule": rule, "answer": answer, "references": [reference], "score": score, **more})

    for answer, reference in pairs(rng):
        add("f1", answer, reference, f1(words(answer), words(reference)))
        add("rouge_l", answer, reference, rouge(answer, reference, "f"))
        add("rouge_l_recall", answer, reference, rouge(answer, reference, "r"))
        add("rouge_l_sum", answer, reference, rouge_sum(answer, reference))
    for _ in range(20):
        start, end = sorted(rng.sample(range(len(CHINESE)), 2))
        reference, answer = CHINESE[start:end + 1], "".join(rng.choice(CHINESE) for _ in range(rng.randrange(1, 20)))
        add("f1_characters", answer, reference, f1(characters(answer), characters(reference)))
    for _ in range(40):
        reference = rng.choice(CODE[:4]).strip("\n")
        answer = "".join(rng.sample(CODE, rng.randrange(1, 5)))
        if rng.random() < 0.5:
            answer = "".join(c for c in reference if rng.random() < 0.8) + "\n" + answer
        add("code_edit", answer, reference, code(answer, reference))
    for length in (199, 200, 260, 400):  # difflib leaves common characters out of texts of 200 and more
        reference = "".join(rng.choice("abcdefgh  ") for _ in range(length))
        answer = "".join(c for c in reference if rng.random() < 0.9)
        add("code_edit", answer, reference, code(answer, reference))
    for answer in ("12", "There are 12.", "12 or 13", "13", "none", "12 12 12 5", "112"):
        add("count", answer, "12", share(answer, "12"))
        add("retrieval", "Paragraph " + answer, "Paragraph 12", share("Paragraph " + answer, "12"))
    packages = {name: version(name) for name in ("rouge", "rouge-score", "fuzzywuzzy")}
    head = {"made_by": "scripts/golden/published_scores.py", "python": sys.version.split()[0], "packages": packages}
    print("{")
    print(f'"about": {json.dumps(head)},')
    print('"cases": [')
    print(",\n".join(json.dumps(case, ensure_ascii=False) for case in cases))
    print("]}")


main()
