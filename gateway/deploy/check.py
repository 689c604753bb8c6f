"""Checks the files beside it: `python3 gateway/deploy/check.py`. Needs PyYAML, and promtool and systemd-analyze, which it runs.

Every metric that a rule or the dashboard asks for must be one that the gateway has, by its sources."""

import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import yaml

HERE = pathlib.Path(__file__).parent
SOURCES = "".join(path.read_text() for path in (HERE.parent / "src").rglob("*.rs"))
faults = []


def fault(what):
    faults.append(what)


def known(expression, where):
    for name in re.findall(r"gateway_[a-z_]+", expression):
        bare = re.sub(r"_(bucket|sum|count)$", "", name)
        if f'"{name}"' not in SOURCES and f'"{bare}"' not in SOURCES:
            fault(f"{where}: the gateway has no metric {name}")


for group in yaml.safe_load((HERE / "alerts.yaml").read_text())["groups"]:
    for rule in group["rules"]:
        known(rule["expr"], f"alerts.yaml {rule['alert']}")
board = json.loads((HERE / "grafana.json").read_text())
for panel in board["panels"]:
    for target in panel["targets"]:
        known(target["expr"], f"grafana.json {panel['title']}")
kinds = [one["kind"] for one in yaml.safe_load_all((HERE / "kubernetes.yaml").read_text())]
if kinds != ["ConfigMap", "Deployment", "Service", "PodDisruptionBudget"]:
    fault(f"kubernetes.yaml: {kinds}")

for command in (["promtool", "check", "rules", "alerts.yaml"], ["promtool", "test", "rules", "alerts_test.yaml"]):
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True)
    if done.returncode:
        fault(f"{' '.join(command)}: {done.stdout}{done.stderr}")

# systemd-analyze wants the program to exist and a socket to have its service beside it.
with tempfile.TemporaryDirectory() as there:
    there = pathlib.Path(there)
    for name in ("tower-gemini-gateway.service", "tower-gemini-gateway.socket"):
        text = (HERE / name).read_text().replace("/usr/local/bin/tower-gemini-gateway", shutil.which("true"))
        (there / name).write_text(text)
    command = ["systemd-analyze", "verify", *map(str, sorted(there.iterdir()))]
    done = subprocess.run(command, capture_output=True, text=True)
    said = [line for line in done.stderr.splitlines() if "tower-gemini-gateway" in line]
    if done.returncode or said:
        fault("\n".join(["systemd-analyze verify:", *said]) + f" (exit code {done.returncode})")

for one in faults:
    print(f"FAILED  {one}")
print(f"the gateway's files: {len(faults)} faults")
sys.exit(bool(faults))
