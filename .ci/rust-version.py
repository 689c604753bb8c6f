"""Checks that nothing in the library asks for a newer Rust than `rust-version` says.

Reads `cargo metadata` from standard input: dependencies of tests, benches and examples may be newer. Of the
language, `let` chains (1.88) are looked for, the one thing since 1.85 that slips in; clippy's `incompatible_msrv`
watches the standard library.
"""
import json
import pathlib
import re
import sys

metadata = json.load(sys.stdin)
packages = {package["id"]: package for package in metadata["packages"]}
nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
root = metadata["resolve"]["root"]


def version(text):
    return tuple(int(part) for part in (text.split(".") + ["0", "0"])[:3])


ours = packages[root]["rust_version"]
seen, todo, newer = set(), [root], []
while todo:
    at = todo.pop()
    if at in seen:
        continue
    seen.add(at)
    theirs = packages[at]["rust_version"]
    if theirs and version(theirs) > version(ours):
        newer.append(f"{packages[at]['name']} {packages[at]['version']} asks for {theirs}")
    for dep in nodes[at]["deps"]:
        if any(kind["kind"] is None for kind in dep["dep_kinds"]):
            todo.append(dep["pkg"])
print(f"{len(seen)} packages, rust-version {ours}")
if newer:
    sys.exit("newer than ours: " + "; ".join(newer))

chain = re.compile(r"&&\s+let\s|\b(?:if|while) let [^;{]*?\s&&\s")
found = [
    f"{path}:{text.count(chr(10), 0, match.start()) + 1}"
    for folder in ("src", "examples", "gateway")
    for path in sorted(pathlib.Path(folder).rglob("*.rs"))
    for text in [path.read_text()]
    for match in chain.finditer(re.sub(r"//.*", lambda m: " " * len(m.group()), text))
]
if found:
    sys.exit("let chains need Rust 1.88: " + ", ".join(found))
