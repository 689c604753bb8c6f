#!/usr/bin/env python3
"""Checks the order of the rooms in src/: imports run downward, files do not import each other in a circle, and no folder has a
name that common ignore files drop.

    .ci/rooms.py            prints what is wrong, and fails if anything is
    .ci/rooms.py --arrows   prints all arrows between rooms

Imports are the paths `crate::…` and `super::…` in code outside of tests and comments. Each is followed through re-exports to the
file that defines the name.
"""

import re
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# From the ground up. A room imports rooms that stand before it.
ROOMS = [
    # The ground: nothing of Gemini.
    "lock", "sync", "time", "rng", "held", "latency", "blame", "redact", "config_error", "answered",
    # Words: plain data, and what reads them.
    "google_rpc", "tier", "catalogue", "verdict", "scan", "request", "context", "call_options", "error", "judge", "event",
    # What layers are made of.
    "layer_order", "body", "seen", "keyed", "admission", "fleet",
    # Layers.
    "classify", "retry", "timeout", "concurrency", "circuit_breaker", "rate_limit", "preflight", "fallback", "coalesce",
    "last_good", "hedge", "places", "resume", "respond", "observe",
    # What puts layers to use.
    "stack", "config", "loopback", "proxy", "reqwest", "reqwest_012", "sim", "guide",
]

# Imports that run upward or close a circle, each with its reason: file, file it imports (patterns), why.
ALLOWED = [
    ("*", "config/*", "a layer says its settings as data, which stand beside what is built of them"),
    ("*/config", "*/layer", "builder and built"),
    ("sim/builder", "sim/simulator", "builder and built"),
    ("stack/preset", "stack", "builder and built"),
    ("tier/service", "*", "the layer that reads a tier lies beside the word that all rooms read"),
    ("context", "retry/shared_attempts", "a field of the context whose inside is retry's alone"),
    ("context/deadline", "context", "the context's reader looks for a deadline, which is asked through it"),
    ("sim/guard", "sim/simulator", "a guard gives back to the simulator what a call has taken of it"),
    ("sim/server", "sim/simulator", "builder and built"),
    ("rate_limit/common", "rate_limit/fleet", "a layer holds its part in a fleet, whose task works on the layer's state"),
    ("preflight/body", "preflight/config", "the count of tokens sends a body, and a body tells what the settings make of it"),
    ("fleet/share", "fleet/book", "the rule of the shares reads the book's records"),
    ("fleet/supply", "fleet/member", "what a member holds, and how it asks for more"),
    ("judge/nest", "judge/json", "a string holds a body, and a body holds strings"),
    ("judge/d*", "judge/json", "the folds of one JSON: a member holds an error, and an error holds members"),
    ("judge/details", "judge/deep", "the same: a detail may hold anything"),
]

# Folders that ignore files of common templates drop wherever they stand.
IGNORED = {"target", "build", "debug", "dist", "out", "obj", "release", "tmp", "temp", "log", "logs", "vendor",
           "node_modules", "coverage", "env", "venv", "lib", "lib64", "pkg", "cache"}


def strip(text):
    """Code without comments, strings and test modules, of the same length in lines."""
    out, i, n = [], 0, len(text)
    while i < n:
        two = text[i:i + 2]
        if two == "//":
            i = text.find("\n", i)
            i = n if i < 0 else i
        elif two == "/*":
            i = text.find("*/", i) + 2
        elif text[i] == "r" and re.match(r'r#*"', text[i:i + 8]) and not (i and (text[i - 1].isalnum() or text[i - 1] == "_")):
            marks = re.match(r"r(#*)", text[i:]).group(1)
            end = text.find('"' + marks, i + 2 + len(marks))
            i = end + 1 + len(marks)
        elif text[i] == '"':
            i += 1
            while i < n and text[i] != '"':
                i += 2 if text[i] == "\\" else 1
            i += 1
            out.append('""')
        elif text[i] == "'":
            char = re.match(r"'(\\.[^']*|[^'\\])'", text[i:])
            if char:
                out.append("' '")
                i += char.end()
            else:
                out.append("'")
                i += 1
        else:
            out.append(text[i])
            i += 1
    return without_tests("".join(out))


def without_tests(code):
    while True:
        test = re.search(r"#\[cfg\((?:all\()?test[^\]]*\]", code)
        if not test:
            return code
        # An item ends with its braces or a semicolon, a field or a member of a group with a comma.
        item = re.match(r"(?:\s*#\[[^\]]*\])*\s*(?:pub(?:\([^)]*\))?\s+)?(?:const|static|use|mod|fn|async|unsafe|impl|struct|enum|type|trait|macro_rules!|proptest!)\b",
                        code[test.end():])
        at, depth = test.end(), 0
        while at < len(code):
            char = code[at]
            depth += (char in "{([") - (char in "})]")
            if depth < 0:
                at -= 1
                break
            if depth == 0 and (char in ";}" if item else char in ",;}"):
                # The group of a `use` is not its end.
                if not (char == "}" and item and re.match(r"\s*;", code[at + 1:])):
                    break
            at += 1
        code = code[:test.start()] + code[at + 1:]


def files():
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "src"], cwd=ROOT, check=True,
                            capture_output=True, text=True).stdout.split()
    return [name for name in listed if name.endswith(".rs") and (ROOT / name).exists()]


def module_of(name):
    parts = name[len("src/"):-len(".rs")].split("/")
    if parts[-1] == "mod":
        parts.pop()
    return () if parts == ["lib"] else tuple(parts)


def members(body):
    """The members of a brace group, at its own depth."""
    depth, word, found = 0, "", []
    for char in body:
        depth += (char == "{") - (char == "}")
        if char == "," and depth == 0:
            found.append(word)
            word = ""
        else:
            word += char
    return [m.strip() for m in [*found, word] if m.strip()]


def expand(path):
    """`a::{b, c::d as e}` as pairs of segments and the name bound."""
    path = path.strip()
    brace = path.find("{")
    if brace < 0:
        path, _, alias = path.partition(" as ")
        segments = [s.strip() for s in path.split("::") if s.strip()]
        bound = alias.strip() or segments[-1]
        if segments[-1] == "self":
            segments.pop()
            bound = alias.strip() or segments[-1]
        return [(segments, bound)]
    head = [s.strip() for s in path[:brace].split("::") if s.strip()]
    return [(head + segments, bound if segments else head[-1])
            for member in members(path[brace + 1:path.rindex("}")])
            for segments, bound in ([([], head[-1])] if member == "self" else expand(member))]


class Source:
    def __init__(self, name):
        self.name, self.module = name, module_of(name)
        raw = (ROOT / name).read_text()
        self.code = strip(raw)
        self.paths, self.bound, self.inner = [], {}, []
        rest = self.code
        for use in re.finditer(r"^\s*(pub(?:\([^)]*\))?\s+)?use\s+([^;]+);", self.code, re.M):
            for segments, bound in expand(use.group(2)):
                # What a front page hands on is no import of its own.
                hands_on = use.group(1) and name.endswith(("mod.rs", "lib.rs"))
                if segments and segments[0] in ("crate", "super", "self") and not hands_on:
                    self.paths.append((segments, self.depth_at(use.start())))
                self.bound[bound] = segments
            rest = rest.replace(use.group(0), " ", 1)
        for path in re.finditer(r"(?<![\w:])(crate|super|self)((?:::\w+)+)", rest):
            self.paths.append((path.group(0).split("::"), self.depth_at(self.code.find(path.group(0)))))

    def depth_at(self, at):
        """Inline modules around a place."""
        for inline in re.finditer(r"^\s*(?:pub(?:\([^)]*\))?\s+)?mod\s+(\w+)\s*\{", self.code, re.M):
            end = self.code.find("\n}", inline.start())
            if inline.start() < at < end:
                return (inline.group(1),)
        return ()


def tests_only(names):
    """Files that only test modules declare."""
    found = set()
    for name in names:
        text = (ROOT / name).read_text()
        folder = Path(name).parent
        stem = Path(name).stem
        inside = folder if stem in ("mod", "lib") else folder / stem
        for test in re.finditer(r"#\[cfg\((?:all\()?test[^\]]*\]\s*(?:#\[path = \"([^\"]+)\"\]\s*)?(?:pub(?:\([^)]*\))?\s+)?mod\s+(\w+);", text):
            base = [str(folder / test.group(1))] if test.group(1) else [f"{inside}/{test.group(2)}.rs",
                                                                        f"{inside}/{test.group(2)}/mod.rs"]
            found.update(base)
    grown = True
    while grown:
        grown = False
        for name in names:
            folder = next((f for f in found if f.endswith("/mod.rs") and name.startswith(f[:-len("mod.rs")])), None)
            plain = next((f for f in found if name.startswith(f[:-len(".rs")] + "/")), None)
            if (folder or plain) and name not in found:
                found.add(name)
                grown = True
    return found


def paths_of(names):
    """Files whose module is not where they lie: `#[path]`."""
    at = {}
    for name in names:
        for path in re.finditer(r'#\[path = "([^"]+)"\]\s*(?:pub(?:\([^)]*\))?\s+)?mod\s+(\w+);', (ROOT / name).read_text()):
            at[str(Path(name).parent / path.group(1))] = (*module_of(name), path.group(2))
    return at


class House:
    def __init__(self):
        names = files()
        tests = tests_only(names)
        moved = paths_of(names)
        self.sources = {}
        for name in names:
            if name not in tests:
                source = Source(name)
                source.module = moved.get(name, source.module)
                self.sources[source.module] = source
        self.arrows = {}
        for source in self.sources.values():
            for segments, inline in source.paths:
                goal = self.resolve(source.module + inline, segments, 0)
                if goal is not None and goal != source.module:
                    self.arrows.setdefault(source.module, {}).setdefault(goal, "::".join(segments))

    def absolute(self, module, segments):
        at = list(module)
        rest = list(segments)
        if rest and rest[0] == "crate":
            at, rest = [], rest[1:]
        while rest and rest[0] in ("self", "super"):
            if rest.pop(0) == "super":
                at.pop()
        return at, rest

    def resolve(self, module, segments, hops):
        """The file that defines what a path names; a module itself where the path ends in one."""
        if hops > 8:
            return None
        at, rest = self.absolute(module, segments)
        while rest and tuple(at + rest[:1]) in self.sources:
            at.append(rest.pop(0))
        source = self.sources.get(tuple(at))
        if source is None:
            return None if not at else self.resolve((), ["crate", *at[:-1]], hops + 1)
        if rest and rest[0] in source.bound:
            goal = source.bound[rest[0]]
            if goal and goal[0] in ("crate", "super", "self"):
                return self.resolve(tuple(at), goal + rest[1:], hops + 1)
            if goal and tuple([*at, goal[0]]) in self.sources:
                return self.resolve(tuple(at), ["self", *goal, *rest[1:]], hops + 1)
        return tuple(at)


def circles(arrows):
    """Strongly connected sets of files (Tarjan)."""
    index, low, stack, on, found = {}, {}, [], set(), []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        on.add(node)
        for goal in arrows.get(node, ()):
            if goal not in index:
                visit(goal)
                low[node] = min(low[node], low[goal])
            elif goal in on:
                low[node] = min(low[node], index[goal])
        if low[node] == index[node]:
            group = set()
            while True:
                last = stack.pop()
                on.discard(last)
                group.add(last)
                if last == node:
                    break
            if len(group) > 1:
                found.append(group)

    sys.setrecursionlimit(10_000)
    for node in list(arrows):
        if node not in index:
            visit(node)
    return found


def main():
    house = House()
    arrows = house.arrows
    if "--arrows" in sys.argv:
        rooms = {}
        for module, goals in arrows.items():
            for goal, path in goals.items():
                if module and goal and module[0] != goal[0]:
                    rooms.setdefault(module[0], {}).setdefault(goal[0], []).append(f"{'/'.join(module)} {path}")
        for room, goals in sorted(rooms.items()):
            for goal, where in sorted(goals.items()):
                print(room, "->", goal, len(where), ";".join(where[:3]))
        return 0
    height = {room: at for at, room in enumerate(ROOMS)}
    wrong, used, kept = [], set(), {}
    for module, goals in arrows.items():
        for goal, path in goals.items():
            here, there = "/".join(module), "/".join(goal)
            rule = next((r for r in ALLOWED if fnmatchcase(here, r[0]) and fnmatchcase(there, r[1])), None)
            if rule:
                used.add(rule)
                continue
            kept.setdefault(module, {})[goal] = path
            if module and goal and module[0] != goal[0] and height.get(goal[0], -1) > height.get(module[0], len(ROOMS)):
                wrong.append(f"upward: {here} imports {path} ({there})")
    rooms = {module[0] for module in house.sources if module}
    wrong.extend(f"no place for the room {room}: add it to ROOMS in .ci/rooms.py" for room in sorted(rooms - set(ROOMS)))
    wrong.extend(f"not needed any more in ALLOWED: {rule[0]} -> {rule[1]}" for rule in ALLOWED if rule not in used)
    for circle in circles(kept):
        inside = [f"{'/'.join(m)} -> {'/'.join(g)} ({p})" for m in sorted(circle) for g, p in sorted(kept[m].items()) if g in circle]
        wrong.append("circle:\n    " + "\n    ".join(inside))
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\n")
    folders = {"/".join(parts[:k + 1]) for name in tracked for parts in [name.split("/")[:-1]] for k in range(len(parts))}
    wrong.extend(f"ignore files drop a folder of this name: {folder}" for folder in sorted(folders) if folder.split("/")[-1] in IGNORED)
    for line in wrong:
        print(line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
