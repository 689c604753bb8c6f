#!/usr/bin/env python3
"""Real SDKs through the gateway: installs them below target/sdk, runs them, prints a table.

    python3 tests/sdk/run.py

Needs cargo, Python 3.9 with venv and pip, and node with npm for the JavaScript SDK; without node that one is left out,
and said so. Nothing is sent to Google: the upstreams are the gateway's simulator and upstream.py. Exit code: 0 if all
cases held.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

sys.dont_write_bytecode = True

import upstream  # noqa: E402

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
LOCAL = TARGET / "sdk"
PYTHON = LOCAL / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
CANCELLED = {"cancelled stream", "cancelled call"}


def run(*command, **options):
    subprocess.run([str(part) for part in command], check=True, **options)


def install():
    """The SDKs that can be installed here: their names, and how their cases are run."""
    LOCAL.mkdir(parents=True, exist_ok=True)
    if not PYTHON.exists():
        run(sys.executable, "-m", "venv", LOCAL / "venv")
    run(PYTHON, "-m", "pip", "install", "--quiet", "--upgrade", "google-genai", "openai", "aiohttp")
    shown = subprocess.run([PYTHON, "-m", "pip", "list", "--format=json"], capture_output=True, text=True, check=True)
    versions = {package["name"]: package["version"] for package in json.loads(shown.stdout)}
    sdks = [
        (f"google-genai {versions['google-genai']}", [PYTHON, HERE / "client_google.py"]),
        (f"openai {versions['openai']}", [PYTHON, HERE / "client_openai.py"]),
    ]
    if not (shutil.which("node") and shutil.which("npm")):
        print("@google/genai is left out: there is no node or no npm here")
        return sdks
    run("npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", LOCAL, "@google/genai@latest")
    # node looks for packages beside the script.
    script = shutil.copy(HERE / "client_google.mjs", LOCAL)
    package = json.loads((LOCAL / "node_modules" / "@google" / "genai" / "package.json").read_text())
    return [*sdks, (f"@google/genai {package['version']}", ["node", script])]


def gateway(*options):
    """The process, and its base URL."""
    program = TARGET / "debug" / "tower-gemini-gateway"
    command = [program, "--listen", "127.0.0.1:0", "--admin", "off", "--log", "off", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    words = process.stderr.readline().split()
    if len(words) < 2 or words[0] != "gateway:":
        sys.exit(f"the gateway does not start: {' '.join(words)}")
    return process, words[1]


def left(url, since):
    """Seconds until the upstream saw a client leave, from when its case was told; None within two seconds."""
    for _ in range(20):
        with urllib.request.urlopen(url) as answer:
            at = json.load(answer)["left"].get("slow", 0)
        if at > since:
            return at
        time.sleep(0.1)
    return None


def cases(name, command, urls, scripted):
    """Runs one SDK; yields rows of the table."""
    process = subprocess.Popen([*map(str, command), *urls], stdout=subprocess.PIPE, text=True)
    since = time.time()
    for line in process.stdout:
        row = json.loads(line)
        if row["case"] in CANCELLED:
            seen = left(scripted, since)
            row["ok"] &= seen is not None
            row["note"] += ", the upstream's call ended" if seen else ", but the upstream's call went on"
        since = time.time()
        yield name, row["case"], "ok" if row["ok"] else "FAILED", row["note"]
    if process.wait() != 0:
        yield name, "all", "FAILED", f"exit code {process.returncode}"


def main():
    run("cargo", "build", "--quiet", "-p", "tower-gemini-gateway", cwd=ROOT)
    sdks = install()
    scripted = upstream.start()
    rows = []
    for name, command in sdks:
        # Each one meets a gateway of its own: quotas and circuits are remembered.
        started = [gateway("--upstream", scripted, "--attempts", "2"), gateway("--simulate")]
        try:
            before = calls(scripted)
            rows.extend(cases(name, command, [url for _, url in started], scripted))
            days = calls(scripted).get("day", 0) - before.get("day", 0)
            rows.append((name, "calls for a spent day", "ok" if days == 1 else "FAILED", f"{days} of 2 requests"))
        finally:
            for process, _ in started:
                process.terminate()
                process.wait()
    rows.extend(refusals(scripted))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    for row in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[3]]))
    failed = sum(row[2] != "ok" for row in rows)
    print(f"{len(rows) - failed} of {len(rows)} held")
    return failed != 0


def refusals(scripted):
    """Rows of clients that are no SDKs, whom the gateway refuses before it was sent the whole body."""
    clients = [("clients of HTTP", [PYTHON, HERE / "refusals.py"])]
    if shutil.which("node"):
        clients.append(("clients of HTTP", ["node", HERE / "refusals.mjs"]))
    process, url = gateway("--upstream", scripted)
    try:
        before = calls(scripted).get("day", 0)
        rows = [row for name, command in clients for row in cases(name, command, [url], scripted)]
        # One for each client: the first of its requests has taught that the day is spent.
        sent = calls(scripted).get("day", 0) - before
        rows.append(("clients of HTTP", "calls for a spent day", "ok" if sent == len(rows) else "FAILED", f"{sent} of {301 * len(rows)} requests"))
        return rows
    finally:
        process.terminate()
        process.wait()


def calls(scripted):
    with urllib.request.urlopen(scripted) as answer:
        return json.load(answer)["calls"]


if __name__ == "__main__":
    sys.exit(main())
