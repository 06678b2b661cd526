#!/usr/bin/env python3
"""Checks that every file includes only downwards. Prints file:line, the violation and the cure; exits 1 if there is one."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

# room -> rooms it may include besides itself. A room is a folder (with its subfolders).
ALLOWED = {
    "harness/core": [],
    "harness/math": ["harness/core"],
    "harness/files": ["harness/core"],
    "harness/text": ["harness/files", "harness/core"],
    "harness/kv": ["harness/math", "harness/core"],
    "harness/attention": ["harness/kv", "harness/math", "harness/core"],
    "harness/tasks/judging": ["harness/core"],
}
ALLOWED["harness/model"] = ["harness/text", "harness/files"] + ["harness/attention"] + ALLOWED["harness/attention"]
ALLOWED["harness/api"] = ["harness/model"] + ALLOWED["harness/model"]
BELOW_PLUGINS = ["harness/api"] + ALLOWED["harness/api"]
for plugin in ("harness/queries", "harness/budgets", "methods", "datasets", "harness/sweep", "harness/head_budgets"):
    ALLOWED[plugin] = BELOW_PLUGINS
# Explains what a sweep's records show, with the sweep's own pieces.
ALLOWED["harness/explain"] = ["harness/sweep", "harness/tasks/judging"] + BELOW_PLUGINS
ALLOWED["harness/tasks"] = ["harness/tasks/judging"] + BELOW_PLUGINS
# The report reads records and never measures: of the sweep it sees the record only.
ALLOWED["harness/report"] = ["harness/tasks/judging", "harness/core"]
ALLOWED["harness/cli"] = ["harness/report", "harness/explain", "harness/sweep", "harness/head_budgets", "harness/tasks/judging"] + BELOW_PLUGINS
EXTRA_FILES = {"harness/report": ["harness/sweep/record.h", "harness/sweep/stop_rule.h", "harness/explain/explanation.h"]}
# Plug-ins are reached through the registry; tests may include anything.
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"')
FORBIDDEN = re.compile(r"^\s*#\s*include\s+<torch/torch\.h>")


def room_of(path):
    matches = [room for room in list(ALLOWED) + ["harness/testing"] if path.startswith(room + "/")]
    return max(matches, key=len) if matches else None


def violations(path):
    room = room_of(path)
    is_test = re.search(r"_(test|bench)\.(cpp|h)$", path) or room == "harness/testing"
    for number, line in enumerate((ROOT / path).read_text(encoding="utf-8").splitlines(), 1):
        if FORBIDDEN.match(line):
            yield f"{path}:{number}: <torch/torch.h> takes 17 s to compile\n  mend: include <ATen/ATen.h>"
        match = INCLUDE.match(line)
        if not match or is_test or room is None:
            continue
        target = match.group(1)
        target_room = room_of(target)
        if target_room is None:
            yield f'{path}:{number}: include "{target}" is not a path from the root\n  mend: write "{room}/{target}"'
        elif target_room != room and target_room not in ALLOWED[room] and target not in EXTRA_FILES.get(room, []):
            below = ", ".join(ALLOWED[room]) or "nothing"
            yield f"{path}:{number}: {room} may not include {target_room}\n  mend: {room} may include {below}; move the code down"


def main():
    files = [p.relative_to(ROOT).as_posix() for folder in ("harness", "methods", "datasets")
             for pattern in ("*.h", "*.cpp", "*.cu") for p in (ROOT / folder).rglob(pattern)]
    found = [v for path in sorted(files) for v in violations(path)]
    for violation in found:
        print(violation, file=sys.stderr)
    print(f"layers: {len(files)} files, {len(found)} violations")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
