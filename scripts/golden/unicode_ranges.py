#!/usr/bin/env python3
"""Where the Unicode of `tokenizers` differs from that of the libraries used here, found by asking `tokenizers` about every code point.

    python scripts/golden/unicode_ranges.py > harness/text/tokenizer/unicode_ranges.inc

needs tokenizers and unicodedata2 (a Unicode newer than that of `tokenizers`), and a Python whose own unicodedata is Unicode 14 (3.11), the
oldest that Oniguruma is expected to have.
"""
import sys
import unicodedata

import tokenizers
import unicodedata2
from tokenizers import Regex, normalizers, pre_tokenizers

CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Cf".split()
POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def ranges(pairs):
    result = []
    for point, kind in pairs:
        if result and result[-1][1] == point - 1 and result[-1][2] == kind:
            result[-1][1] = point
        else:
            result.append([point, point, kind])
    return result


def newer():
    """Code points that `tokenizers` has in a category and Unicode 14 does not know."""
    unknown = [c for c in POINTS if unicodedata.category(chr(c)) == "Cn"]
    category = {}
    for name in CATEGORIES:
        split = pre_tokenizers.Split(Regex(rf"\p{{{name}}}"), "removed")
        category.update({c: name for c in unknown if not split.pre_tokenize_str(chr(c))})
    return ranges(sorted(category.items()))


def inert():
    """Code points that NFC moves or joins, but not in `tokenizers`, whose normalisation is older."""
    nfc = normalizers.NFC().normalize_str
    found = set()
    for c in POINTS:
        s = chr(c)
        tries = ["e" + s + "\u0316\u0301", "e\u0301" + s + "\u0327", s + "\u0301", s, "a" + s + "\u0338\u0316\u0301\u3099"]
        if any(nfc(t) != unicodedata2.normalize("NFC", t) for t in tries):
            found.add(c)
        parts = unicodedata2.decomposition(s)
        if parts and not parts.startswith("<"):
            pieces = [int(p, 16) for p in parts.split()]
            if nfc("".join(map(chr, pieces))) != unicodedata2.normalize("NFC", "".join(map(chr, pieces))):
                found.update({c, pieces[0]})
    return ranges((c, "") for c in sorted(found))


def main():
    print(f"// Made by scripts/golden/unicode_ranges.py with tokenizers {tokenizers.__version__}, Unicode {unicodedata.unidata_version} and "
          f"{unicodedata2.unidata_version}.")
    print("// clang-format off")
    print("constexpr NewerRange kNewer[] = {")
    print("\n".join(f"    {{0x{a:X}, 0x{b:X}, Category::k{k}}}," for a, b, k in newer()))
    print("};\n\nconstexpr PointRange kInert[] = {")
    print("\n".join(f"    {{0x{a:X}, 0x{b:X}}}," for a, b, _ in inert()))
    print("};\n// clang-format on")


if __name__ == "__main__":
    sys.exit(main())
