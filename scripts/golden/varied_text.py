"""A text of any size that holds what tokenizers get wrong, made from a seed and a recipe that another language can follow.

The recipe is a dictionary of plain lists (see recipe()); text() follows it. Random numbers are SplitMix64's (Steele et al. 2014).
"""
import textwrap

MASK = 2**64 - 1

PROSE = [
    "The keeper of the lighthouse wrote down the hour, the wind and the name of every ship that passed before dawn.",
    "It's the third time they've asked; I'm sure she'd say no, and we'll see what he's got to say: don't you think so?",
    "IT'S NOT THAT WE'VE FORGOTTEN, THEY'RE LATE AND I'D WAIT.", "\"Well,\" said the doctor - and paused - \"that depends...\"",
    "Patient no. 4711 (born 03/07/1954) was admitted with a fever of 39.4 \u00b0C; Hb 11.2 g/dl, CRP 143 mg/l, INR 1.05.",
    "Find the number of ordered pairs (a, b) with 1 <= a < b <= 100 such that a^2 + b^2 is divisible by 7.",
    "Let $f(x) = \\frac{x^3 - 1}{x - 1}$; then $\\lim_{x \\to 1} f(x) = 3$, and $\\sum_{k=1}^{n} k = \\binom{n+1}{2}$.",
    "Der F\u00e4hrmann \u00fcbersetzte die Stra\u00dfenbahnhaltestellenschilder; \u00c4rger gab's trotzdem.", "Gr\u00fc\u00dfe aus K\u00f6ln!",
    "L'\u0153uvre n'\u00e9tait pas finie \u00ab malgr\u00e9 tout \u00bb, o\u00f9 qu'il all\u00e2t.", "El ni\u00f1o pregunt\u00f3: \u00bfpor qu\u00e9 no? \u00a1Vamos!",
    "A cora\u00e7\u00e3o n\u00e3o se manda; p\u00f4r-do-sol \u00e0s dezoito.", "\u0141\u00f3d\u017a i Gda\u0144sk: za\u017c\u00f3\u0142\u0107 g\u0119\u015bl\u0105 ja\u017a\u0144.",
    "P\u0159\u00edli\u0161 \u017elu\u0165ou\u010dk\u00fd k\u016f\u0148 \u00fap\u011bl.", "\u0130stanbul'da ya\u011fmur ya\u011f\u0131yor, \u0131\u015f\u0131klar s\u00f6nd\u00fc.",
    "Ti\u1ebfng Vi\u1ec7t c\u00f3 nhi\u1ec1u d\u1ea5u: \u1eb1, \u1ed9, \u1eef, \u1eb5.", "\u041c\u0430\u044f\u043a \u0432\u0438\u0434\u0435\u043d \u0438\u0437\u0434\u0430\u043b\u0435\u043a\u0430, \u043d\u043e \u043a\u043e\u0440\u0430\u0431\u043b\u044f \u043d\u0435\u0442.",
    "\u0407\u0436\u0430\u043a \u0457\u0441\u0442\u044c \u044f\u0431\u043b\u0443\u043a\u0430.", "\u039f \u03c6\u03ac\u03c1\u03bf\u03c2 \u03c6\u03ad\u03b3\u03b3\u03b5\u03b9 \u03c4\u03b7 \u03bd\u03cd\u03c7\u03c4\u03b1\u00b7 \u03ba\u03b1\u03bb\u03b7\u03bc\u03ad\u03c1\u03b1\u03c2.",
    "\u706f\u5854\u7684\u5b88\u591c\u4eba\u6bcf\u5929\u8bb0\u5f55\u98ce\u5411\u3002", "\u5979\u8bf4\uff1a\u201c\u4eca\u5929\u662f2026\u5e7411\u670823\u65e5\u3002\u201d", "\u71c8\u5854\u5b88\u300c\u8a18\u9304\u300d\u98a8\u5411\u3001\u6642\u9593\uff01",
    "\u706f\u53f0\u306e\u756a\u4eba\u306f\u6bce\u6669\u98a8\u3092\u8a18\u9332\u3057\u307e\u3059\u3002", "\u30b3\u30f3\u30d4\u30e5\u30fc\u30bf\u30fc\u306e\u30c8\u30fc\u30af\u30f3\uff08\u5f62\u614b\u7d20\uff09", "\uff8a\uff9d\uff76\uff78\uff76\uff85 \uff21\uff22\uff23 \uff11\uff12\uff13",
    "\ub4f1\ub300\uc9c0\uae30\ub294 \ub9e4\uc77c \ubc14\ub78c\uc744 \uc801\ub294\ub2e4.", "\u1112\u1161\u11ab\u1100\u1173\u11af \ud55c\uae00",
    "\u062d\u0627\u0631\u0633 \u0627\u0644\u0645\u0646\u0627\u0631\u0629 \u064a\u0643\u062a\u0628 \u0643\u0644 \u0644\u064a\u0644\u0629.", "\u0645\u064f\u062d\u064e\u0645\u0651\u064e\u062f\u064c \u0664\u0662 \u06f1\u06f2\u06f3", "\u0646\u06af\u0647\u0628\u0627\u0646 \u0641\u0627\u0646\u0648\u0633 \u0645\u06cc\u200c\u0646\u0648\u06cc\u0633\u062f",
    "\u05e9\u05d5\u05de\u05e8 \u05d4\u05de\u05d2\u05d3\u05dc\u05d5\u05e8 \u05db\u05d5\u05ea\u05d1", "\u05d1\u05bc\u05b0\u05e8\u05b5\u05d0\u05e9\u05b4\u05c1\u05d9\u05ea", "\u092a\u094d\u0930\u0915\u093e\u0936\u0938\u094d\u0924\u0902\u092d \u0915\u093e \u0930\u0916\u0935\u093e\u0932\u093e \u0967\u0968\u0969",
    "\u09ac\u09be\u09a4\u09bf\u0998\u09b0", "\u0b95\u0bb2\u0b99\u0bcd\u0b95\u0bb0\u0bc8 \u0bb5\u0bbf\u0bb3\u0b95\u0bcd\u0b95\u0bae\u0bcd", "\u0e1b\u0e23\u0e30\u0e20\u0e32\u0e04\u0e32\u0e23\u0e19\u0e35\u0e49\u0e2a\u0e27\u0e48\u0e32\u0e07", "\u1019\u102e\u1038\u1015\u103c\u1010\u102d\u102f\u1000\u103a", "\u1794\u17c9\u1798\u1797\u17d2\u179b\u17be\u1784",
    "\u12e8\u1265\u122d\u1203\u1295 \u121b\u121b", "\u10e8\u10e3\u10e5\u10e3\u10e0\u10d0 \u10d0\u10dc\u10d7\u10d4\u10d1\u10e1", "\u0553\u0561\u0580\u0578\u057d\u0568", "\u0f56\u0f7c\u0f51\u0f0b\u0f61\u0f72\u0f42", "\u13a3\u13b3\u13a9 \uab70\uab71", "\u1820\u1822\u180e\u1820",
]

CODE = [
    "#include <vector>\nint main() {\n  for (size_t i = 0; i < v.size(); ++i) {\n    sum += v[i] * 0x1F;\n  }\n  return 0;\n}\n",
    "def f(x, *, n=10_000):\n    \"\"\"Doc.\"\"\"\n    return [y**2 for y in x if y % 2 == 0][:n]\n\n\n", "\tif err != nil {\n\t\treturn nil, err\n\t}\n",
    "SELECT a.id, COUNT(*) FROM t AS a WHERE name LIKE '%\\_x%' GROUP BY 1;\r\n", "<div class=\"row\"><a href='https://example.org/?q=1&amp;r=%20'>x</a></div>",
    "{\"key\": [1, 2.5e-3, null, true], \"nested\": {\"a\\u0301\": \"\\n\"}}", "fn main() -> Result<(), Box<dyn Error>> { let x: &'static str = r#\"a\"#; Ok(()) }",
    "x = {'a': 1}; y = f\"{x['a']:>10.3f}\"", "$ ls -la | grep -v '^d' > out.txt 2>&1 && echo \"done\"\n", "// TODO(x): camelCase snake_case SCREAMING_CASE kebab-case __init__",
    "C:\\Users\\x\\file.txt /usr/lib/x86_64-linux-gnu/libm.so.6 ../../a.b", "a=b+c-d*e/f%g^h&i|j~k!l?m:n;o,p.q@r#s$t", "((((([[[[{{{{}}}}]]]])))))", "\\\\\\\\ //// ----- ===== _____ ***** .....",
    "\\begin{align}\n  a &= b \\\\\n  c &\\neq d\n\\end{align}\n", "0x7fffFFFF 0b1010 1e-10 3.14159265358979 1,000,000 192.168.0.1 12:34:56 2026-11-23T04:05:06Z",
    "    \n        \n            return\n", "\t\t\t\t\tx\n", "| a | b |\n|---|:-:|\n| 1 | 2 |\n", "-----BEGIN X-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA7\n-----END X-----\n",
]

CHARACTERS = [
    "e\u0301", "\u00e9", "A\u030a", "\u00c5", "\u212b", "q\u0307\u0323", "q\u0323\u0307", "\u1e9b\u0323", "\u0344", "\u0958", "\u2126", "\uf900", "\ufa0e", "\U0002f800", "\u1100\u1161", "\uac00\u11a8",
    "Z\u0351\u036b\u0343\u036a\u0302", "\u0301", "\u0301\u0301", " \u0301", "\n\u0301", "1\u0301", "\u0928\u093c", "\u09c7\u09be", "\u0dd9\u0dcf\u0dca", "\u1b05\u1b35", "\U0001d15e", "\U000110a5\U000110ba", "\ufb1d", "\ufb01",
    "\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466", "\U0001f3f3\ufe0f\u200d\U0001f308", "\U0001f44d\U0001f3fd", "\U0001f1e9\U0001f1ea\U0001f1eb", "1\ufe0f\u20e3", "\u2764\ufe0f", "\u2602\ufe0e", "\U0001fae8", "\U0001f9d1\U0001f3ff\u200d\U0001f680",
    "\u200d", "\u200b", "\u200c", "\u200e", "\u202e", "\u2066", "\u2069", "\ufeff", "\u00ad", "\u2060", "\u00a0", "\u1680", "\u2003", "\u2009", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000", "\u0085", "\u180e",
    "\u0000", "\u0001", "\u0004", "\u0007", "\u0008", "\u000b", "\u000c", "\u001b[31m", "\u001c", "\u001f", "\u007f", "\u0080", "\u009f", "\ufffd", "\ufffe", "\uffff", "\ue000", "\U000f0000", "\U0010ffff", "\U000e0041", "\ufdd0",
    "\u2581", "\u2581\u2581", "\u2581a", "a\u2581b", "\u0120", "\u010a", "\u0120the", "\u00c3\u00a9", "\u00ff", "\u0131", "\u0130", "\u017f", "'\u017f", "\u212a", "\u00df", "\u1e9e", "\u01c5", "\u02b0", "\u0345",
    "\u00b2", "\u00bd", "\u2460", "\u2167", "\u0663", "\u06f4", "\u0967", "\u4e00\u4e8c", "\u3021", "\U0001d7d8\U0001d7d9", "\U00010107", "\u3007", "\uff15", "\u0e53", "\u1369",
    "\u20ac", "\u00a3", "\u221e", "\u2211", "\u2192", "\u00ab", "\u00bb", "\u2019", "it\u2019s", "\u201c", "\u2014", "\u2026", "\u3001", "\u30fb", "\u060c", "\u0964", "\u2e3b",
]

SPELLINGS = [
    "<s>", "</s>", "<unk>", "<pad>", "[INST]", "[/INST]", "<<SYS>>", "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|python_tag|>",
    "<|reserved_special_token_7|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|fim_prefix|>", "<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>",
    "<repo_name>", "<file_sep>", "<jupyter_code>", "<0x0A>", "<0x00>", "<0xE2>", "<|im_start", "|im_end|>", "<|", "|>", "<|im_start|>system\nx<|im_end|>\n", "<|im_start|><|im_start|>", "<</s>>",
    "{{ x }}", "{% raw %}", "\\xff\\xfe", "%E2%82", "\\u0041", "&#x41;",
]

SPACES = ["  ", "   ", " " * 7, " " * 16, " " * 33, "\t", "\t\t", " \t", "\t ", "\n", "\n\n", "\n\n\n", "\r\n", "\r\n\r\n", "\r", "\n\r", " \n", "\n ", " \n ", "  \r\n  ", " \t\n\t ", "\u00a0 ", " \u3000"]

LONG = ["a" * 70, "ab" * 40, "=" * 90, "'" * 33, "\u00e9" * 50, "\u6f22" * 40, "\U0001f600" * 20, "\u0301" * 30, "9" * 64, "0" * 33, " " * 130, "\n" * 40, "\t" * 50, "!?" * 30, "\u2581" * 20, "<|" * 20, "Aa" * 30,
        "Donaudampfschifffahrtselektrizit\u00e4tenhauptbetriebswerkbauunterbeamtengesellschaft", "pneumonoultramicroscopicsilicovolcanoconiosis"]

SEPARATORS = [""] * 3 + [" "] * 12 + ["\n"] * 3 + ["\n\n", "\r\n", "\t", "  ", ", ", ". ", "-", "'", "\"", "(", ")"]

# First and last character of blocks from which single characters are drawn, assigned or not.
BLOCKS = [
    [0x20, 0x7E], [0x00, 0x1F], [0x80, 0xFF], [0x100, 0x24F], [0x250, 0x36F], [0x370, 0x52F], [0x530, 0x6FF], [0x700, 0x8FF], [0x900, 0xDFF], [0xE00, 0x10FF], [0x1100, 0x11FF], [0x1200, 0x1AFF], [0x1B00, 0x1FFF],
    [0x2000, 0x206F], [0x2070, 0x2BFF], [0x2C00, 0x2FFF], [0x3000, 0x33FF], [0x3400, 0x4DFF], [0x4E00, 0x9FFF], [0x4E00, 0x6FFF], [0xA000, 0xABFF], [0xAC00, 0xD7FF], [0xE000, 0xF8FF], [0xF900, 0xFFFD],
    [0x10000, 0x107FF], [0x10800, 0x11FFF], [0x12000, 0x16FFF], [0x17000, 0x1BFFF], [0x1D000, 0x1DFFF], [0x1E000, 0x1EFFF], [0x1F000, 0x1FAFF], [0x1F300, 0x1F6FF], [0x20000, 0x2A6DF], [0x2A6E0, 0x323AF], [0xE0000, 0xE01EF],
    [0x10FFF0, 0x10FFFF],
]


def recipe(seed, n_bytes):
    words = [w for sentence in PROSE for w in sentence.split(" ")]
    return {"seed": seed, "bytes": n_bytes, "separators": SEPARATORS, "blocks": BLOCKS,
            "groups": [PROSE, PROSE, words, words, words, CODE, CHARACTERS, SPELLINGS, SPACES, LONG]}


class SplitMix:
    def __init__(self, seed):
        self.state = seed

    def below(self, n):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return (z ^ (z >> 31)) % n


def text(r):
    """Parts until there are r["bytes"] bytes: one of a group's pieces, a number, characters of a block, or letters; then a separator."""
    random, parts, size = SplitMix(r["seed"]), [], 0
    groups, blocks, separators = r["groups"], r["blocks"], r["separators"]
    while size < r["bytes"]:
        kind = random.below(len(groups) + 3)
        if kind < len(groups):
            part = groups[kind][random.below(len(groups[kind]))]
        elif kind == len(groups):
            part = "".join(chr(0x30 + random.below(10)) for _ in range(1 + random.below(20)))
        elif kind == len(groups) + 1:
            low, high = blocks[random.below(len(blocks))]
            part = "".join(chr(low + random.below(high - low + 1)) for _ in range(1 + random.below(6)))
        else:
            case = 0x41 if random.below(3) == 0 else 0x61
            part = "".join(chr((case if i == 0 else 0x61) + random.below(26)) for i in range(1 + random.below(12)))
        part += separators[random.below(len(separators))]
        parts.append(part)
        size += len(part.encode())
    return "".join(parts)


def hard_lines(seed=1, n=120):
    """Every piece by itself, where it is short, and short mixtures of pieces."""
    short = [p for p in CHARACTERS + SPELLINGS + SPACES + LONG + CODE[:12] + PROSE[::3]]
    random = SplitMix(seed)
    pool = CHARACTERS + SPELLINGS + SPACES + ["a", "the", "Hello", "It's", "1", "12", "123", "2026", "'ll", ".", "?", " ", " ", " ", "\u4f60", "\u0416"]
    mixed = ["".join(pool[random.below(len(pool))] for _ in range(2 + random.below(9))) for _ in range(n)]
    return [""] + short + mixed


if __name__ == "__main__":
    print(textwrap.shorten(repr(text(recipe(1, 4000))), 4000))
