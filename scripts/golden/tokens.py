#!/usr/bin/env python3
"""Token ids and rendered chats for the demo model, judged by `tokenizers` and `jinja2`.

    python scripts/golden/tokens.py --quality QuALITY.v1.0.1.dev.jsonl > harness/testing/golden/tokens.json

The judge is built from the GGUF's own vocabulary and merges; `transformers`' conversion of that file forgets that SmolLM takes
every digit alone. The other pre-tokenizers are tried on the same vocabulary, with their models' published expressions.
Article text is not stored, only the number of tokens and a hash.
"""
import argparse
import json
import random
import sys

import gguf
import jinja2
import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers

from tokenizer_judges import llama_cpp_default

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def fnv1a(text):
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = ((value ^ byte) * 0x100000001B3) % 2**64
    return f"{value:016x}"


def hashed(ids):
    return fnv1a(",".join(map(str, ids)))


def judges(reader):
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(m.split(" ")) for m in reader.fields["tokenizer.ggml.merges"].contents()]
    vocab = {token: i for i, token in enumerate(tokens)}

    def build(pre, **options):
        judge = Tokenizer(models.BPE(vocab, merges, **options))
        judge.pre_tokenizer = pre
        return judge

    def split(pattern):
        return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"),
                                        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])

    def smollm():
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                        pre_tokenizers.ByteLevel(add_prefix_space=False)])

    plain = {"smollm": build(smollm()), "gpt2": build(pre_tokenizers.ByteLevel(add_prefix_space=False)),
             "llama-bpe": build(split(LLAMA3), ignore_merges=True), "qwen2": build(split(QWEN2)), "default": build(llama_cpp_default())}
    control = build(smollm())
    types = reader.fields["tokenizer.ggml.token_type"].contents()
    control.add_special_tokens([AddedToken(t, normalized=False, special=True) for t, k in zip(tokens, types) if k == 3])
    return plain, control


SPECIAL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<repo_name>", "<file_sep>", "<jupyter_code>"]

HAND = [
    "", " ", "  ", "   ", "\n", "\n\n", "\r\n", "\r\n\r\n", "\t", "\t\t\t", " \n", "\n ", " \t \n\t ", "a", " a", "a ", "a  b",
    "a   b", "a\nb", "a \n b", "a  \n  b", "a\r\nb", "a \r\n\r\n b", "trailing   ", "   leading", "a\u00a0b", "a\u00a0\u00a0b",
    "\u2003em space", "a\u3000b", "zero\u200bwidth", "\ufeffbom", "a\u0085b", "a \u0085 b", "a\u180eb", "a \u180e b", "\u2028\u2029",
    "It's", "IT'S", "'S 're 'VE 'm 'Ll 'd 't", "don't we'll they've I'm you're he'd", "''s", "' s", "'\u017f", "o'clock's",
    "1", "12", "123", "1234", "12345", "1234567890", " 1", "  1", "   12  3", "a1b22c333", "3.14159", "1,000,000", "v2.0.1-rc3",
    "2024-11-22T21:45:00Z", "1" * 50, "0x7fffFFFF", "1st 2nd 3rd", "\u0663\u0664\u0665", "\u2460\u2461\u2462", "x\u00b2+y\u00b3",
    "\u00bd cup", "\u2167 century", "\u4e00\u4e8c\u4e09", "\U0001d7d8\U0001d7d9", "  \u0663 7", "a  \u2460", "\n5", " \n 5", "\t5 5\t",
    "int main(int argc, char** argv) { return argc > 1 ? 0 : -1; }", "for (size_t i = 0; i < n; ++i) {\n    sum += a[i];\n}",
    "def f(x):\n\treturn x**2  # square\n\n\n\n", "    if (x) {\n        y();\n    }\n", "#include <vector>\r\n#define A(b) (b)\r\n",
    "SELECT * FROM t WHERE a='b' AND c>=10;", "<div class=\"a b\">&nbsp;</div>", "https://example.org/a?b=c&d=%20#e_f",
    "user@example.org", "C:\\dir\\file.txt", "/usr/lib/x86_64-linux-gnu/libm.so.6", "snake_case camelCase PascalCase kebab-case",
    "!!!", "...", "?!?!", "-----", "=====\n=====", "***bold***", "$100 \u20ac50 \u00a320", "100%", "a+b=c", "(((())))", "[[]]{}", "\\\\\\",
    "\u4f60\u597d\uff0c\u4e16\u754c\uff01", "\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8", "\ud55c\uad6d\uc5b4 \ubb38\uc7a5",
    "\u0627\u0644\u0644\u063a\u0629 \u0627\u0644\u0639\u0631\u0628\u064a\u0629", "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440!", "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35", "\u0928\u092e\u0938\u094d\u0924\u0947",
    "\u0395\u03bb\u03bb\u03b7\u03bd\u03b9\u03ba\u03ac", "\u1797\u17b6\u179f\u17b6\u1781\u17d2\u1798\u17c2\u179a", "caf\u00e9 cafe\u0301",
    "Zalgo Z\u0351\u036b\u0343\u036a\u0302\u036b\u033d", "\u00e5ngstr\u00f6m A\u030a", "\ufb01 \ufb02 ligatures", "na\u00efve fa\u00e7ade \u00fcber stra\u00dfe",
    "\U0001f600", "\U0001f600\U0001f600\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466", "\U0001f3f3\ufe0f\u200d\U0001f308",
    "\U0001f44d\U0001f3fd ok", "\U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7", "1\ufe0f\u20e3", "text\ufe0e", "\u2764\ufe0f love", "\U00020000\U0002a6d6",
    "\U000e0067\U000e007f", "\U0010ffff", "\ue000 private", "\ufffd", "\ufffd\ufffd a", "\ufffe\uffff", "\u0000", "a\u0000b", "\u0001\u0002\u0003",
    "\u0004", "a\u0004b", "a \u0006 b", "\u0013\u0014\u0016\u001d", "\u001c\u001d\u001e\u001f", "bell\u0007", "esc\u001b[31mred\u001b[0m", "del\u007f",
    "\u0080\u0081\u009f", "soft\u00adhyphen", "\u202eright to left\u202c", "\u2066isolate\u2069", "a\u200db", "\u200e\u200f",
    "\u0130stanbul \u0131", "\u01c5 \u02b0 \u3005", "\u2603 \u2713 \u2192 \u221e", "\u201cquoted\u201d \u2018single\u2019 \u2014 dash \u2026",
    "it\u2019s", "\u00abguillemets\u00bb", "\u3010\u30fb\u3011", "\uff11\uff12\uff13 \uff21\uff22", "x\u0307\u0323", "\u1e9b\u0323", "\u0344",
    "<|im_start|>", "<|im_end|>", "<|im_start|>system\nYou are evil<|im_end|>\n", "a<|endoftext|>b", " <|im_end|> ", "<|im_start",
    "|im_end|>", "<|eot_id|>", "<s></s>", "[INST]", "<repo_name>x<file_sep>y", "<<|im_end|>>", "<|im_end|><|im_end|>", "<think>",
    "\\xff\\xfe", "%FF%FE", "\u00c3\u00a9 mojibake", "\u00ff\u00fe", "\u00c0\u0080", "a" * 300, "ab" * 200, "A" * 101, "the" * 70, " " * 130 + "x",
    "\n" * 70, "\t" * 33 + "y", "\u00e9" * 90, "\u6f22" * 80, "\U0001f600" * 40, "=" * 200, "'" * 40, ("x" * 60 + " ") * 4, "\u0301" * 50,
    "Pneumonoultramicroscopicsilicovolcanoconiosis", "Donaudampfschifffahrtselektrizit\u00e4tenhauptbetriebswerkbauunterbeamtengesellschaft",
    "The quick brown fox jumps over the lazy dog.", "Answer: A) 42\nB) 17\nC) 3", "Q: What is 7 * 8?\nA: 56",
]

POOL = (list("aeiostnrThe") + [" "] * 8 + ["\n", "\r\n", "\t", "  ", "   "] + list("0123456789") + list(".,;:!?'\"()[]{}<>|/\\_-+*&%$#@~^`=") +
        ["'s", "'re", "'LL", "'T", " the", " and", "ing", "\u00e9", "\u00df", "\u00f1", "e\u0301", "\u4f60", "\u6f22", "\u306e", "\ud55c", "\u0627",
         "\u0644", "\u05d0", "\u0416", "\u03bb", "\u0663", "\u00b2", "\u2460", "\u2167", "\U0001f600", "\u200d", "\ufe0f", "\U0001f3fd", "\u00a0", "\u3000",
         "\u2009", "\u0085", "\u2028", "\u180e", "\u200b", "\u0000", "\u0001", "\u0004", "\u001c", "\u007f", "\ufffd", "\ue000"] + SPECIAL[:3])


def lines():
    rng = random.Random(20002)
    return HAND + ["".join(rng.choices(POOL, k=rng.randint(3, 60))) for _ in range(160)]


def stored(ids):
    return ids if len(ids) <= 120 else {"count": len(ids), "hash": hashed(ids)}


CONTENTS = ["", " ", "\n", "Hello", "  padded  ", "line one\nline two\n", "\n\nstarts with newlines", "ends with newlines\n\n", "\u4f60\u597d\uff0c\u4e16\u754c", "caf\u00e9 \U0001f600",
            "\U0001f468\u200d\U0001f469\u200d\U0001f467", "12345 and 67", "{{ not a template }}", "{% raw %}", "'quotes' \"double\"", "<b>html</b> &amp;", "tab\there", "\r\nCRLF\r\n",
            "\u0627\u0644\u0639\u0631\u0628\u064a\u0629", "a" * 200, "It's 3 o'clock.", "user", "assistant\n", "system\nuser"]


def conversations():
    rng = random.Random(7)
    result = [[("system", "")], [("system", "S")], [("system", ""), ("user", "")], [("system", "S"), ("user", "U"), ("assistant", "A")]]
    for i in range(32):
        turns = [("system", rng.choice(CONTENTS))]
        for j in range(i % 6):
            turns.append((("user", "assistant")[j % 2], CONTENTS[(7 * i + 5 * j) % len(CONTENTS)]))
        result.append(turns)
    return result


def chats(reader, control):
    source = reader.fields["tokenizer.chat_template"].contents()
    template = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(source)  # as transformers sets it
    for i, turns in enumerate(conversations()):
        prompt = i % 2 == 1
        text = template.render(messages=[{"role": r, "content": c} for r, c in turns], add_generation_prompt=prompt)
        yield {"turns": turns, "generation_prompt": prompt, "text": text, "ids": stored(control.encode(text).ids)}


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--gguf", default="models/smollm2-135m-instruct.gguf")
    arguments.add_argument("--quality", required=True, help="QuALITY as released, JSON lines")
    arguments = arguments.parse_args()
    reader = gguf.GGUFReader(arguments.gguf)
    plain, control = judges(reader)
    articles = {}
    with open(arguments.quality, encoding="utf-8") as file:
        for line in file:
            record = json.loads(line)
            ids = plain["smollm"].encode(record["article"]).ids
            articles[record["article_id"]] = {"count": len(ids), "hash": hashed(ids)}
    print("{")
    command = "scripts/golden/tokens.py --quality QuALITY.v1.0.1.dev.jsonl"
    print('"made_by":', json.dumps({"command": command, "python": sys.version.split()[0], "tokenizers": tokenizers.__version__,
                                    "jinja2": jinja2.__version__}), ",")
    print('"articles":', json.dumps(articles), ",")
    print('"lines": [')
    print(",\n".join(json.dumps({"text": text, "ids": stored(plain["smollm"].encode(text).ids),
                                 "hashes": {name: hashed(judge.encode(text).ids) for name, judge in plain.items()}})
                     for text in lines()))
    print('],\n"chats": [')
    print(",\n".join(json.dumps(chat) for chat in chats(reader, control)))
    print("]}")


if __name__ == "__main__":
    main()
