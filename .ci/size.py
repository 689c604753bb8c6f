#!/usr/bin/env python3
"""Counts the code of src/ by room: lines without tests, comments and blanks, types, and lines per type.

    .ci/size.py             prints a table, and fails if a file has more than 400 lines
    .ci/size.py COMMIT      the same of another commit, to compare; never fails

A type is a struct, an enum, a union or a trait, also one that a macro of pin-project makes.
"""

import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import rooms  # noqa: E402

MOST = 400
TYPE = re.compile(r"^\s*(?:pub(?:\([^)]*\))?\s+)?(?:struct|enum|union|trait)\s+\w+", re.M)


def sources(commit):
    """Files and their texts."""
    if commit is None:
        return {name: (rooms.ROOT / name).read_text() for name in rooms.files()}
    listed = subprocess.run(["git", "ls-tree", "-r", "--name-only", commit, "src"], cwd=rooms.ROOT, check=True,
                            capture_output=True, text=True).stdout.split()
    text = lambda name: subprocess.run(["git", "show", f"{commit}:{name}"], cwd=rooms.ROOT, check=True,  # noqa: E731
                                       capture_output=True, text=True).stdout
    return {name: text(name) for name in listed if name.endswith(".rs")}


def tests_only(texts):
    """Files that only test modules declare, by their names."""
    found = set()
    for name, text in texts.items():
        folder = Path(name).parent
        inside = folder if Path(name).stem in ("mod", "lib") else folder / Path(name).stem
        declared = r"#\[cfg\((?:all\()?test[^\]]*\]\s*(?:#\[path = \"([^\"]+)\"\]\s*)?(?:pub(?:\([^)]*\))?\s+)?mod\s+(\w+);"
        for path, module in re.findall(declared, text):
            found.add(str(folder / path) if path else f"{inside}/{module}.rs")
            found.add(f"{inside}/{module}/mod.rs")
    return {name for name in texts if name in found or "/tests/" in name
            or any(name.startswith(f[:-len("mod.rs")]) for f in found if f.endswith("/mod.rs"))}


def main():
    commit = sys.argv[1] if len(sys.argv) > 1 else None
    texts = sources(commit)
    tests = tests_only(texts)
    table, longest = {}, []
    for name, text in sorted(texts.items()):
        if name in tests:
            continue
        code = rooms.strip(text)
        lines = sum(1 for line in code.splitlines() if line.strip())
        parts = name.split("/")
        row = table.setdefault(parts[1].removesuffix(".rs"), [0, 0, 0])
        row[0] += 1
        row[1] += lines
        row[2] += len(TYPE.findall(code))
        longest.append((lines, name))
    print(f"{'room':<18}{'files':>6}{'lines':>8}{'types':>7}{'per type':>10}")
    for room, (files, lines, types) in sorted(table.items()):
        print(f"{room:<18}{files:>6}{lines:>8}{types:>7}" + (f"{lines / types:>10.1f}" if types else ""))
    print(f"{'all':<18}{sum(r[0] for r in table.values()):>6}{sum(r[1] for r in table.values()):>8}{sum(r[2] for r in table.values()):>7}")
    longest.sort(reverse=True)
    print("longest:", ", ".join(f"{name} {lines}" for lines, name in longest[:5]))
    if commit is None:
        long = [f"{name} has {lines} lines of code, at most {MOST}" for lines, name in longest if lines > MOST]
        print("\n".join(long), end="\n" if long else "")
        return 1 if long else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
