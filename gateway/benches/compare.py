"""The gateway beside nginx and haproxy as plain proxies, in one run: `python3 gateway/benches/compare.py [SECONDS [ROUNDS]]`.

Needs wrk, nginx and haproxy (Debian packages of these names), and `cargo build --release -p tower-gemini-gateway`. Prints processor time per
request, which other work on the machine moves little, and requests a second, which it moves much. The gateway runs with a history and
metrics on. The proxies take turns, a round of SECONDS each, so that what else runs is the same for all; the medians of the rounds are printed,
and the median of each round's ratio to nginx. GATEWAYS names other programs to be measured, as name=path, separated by commas."""

import asyncio
import contextlib
import os
import pathlib
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
GATEWAY = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "tower-gemini-gateway"
ARGUMENTS = [int(text) for text in sys.argv[1:] if text.isdigit()]
SECONDS = ARGUMENTS[0] if ARGUMENTS else 2
ROUNDS = ARGUMENTS[1] if len(ARGUMENTS) > 1 else 7
EVENT = b'data: {"candidates":[{"content":{"parts":[{"text":"word "}],"role":"model"},"index":0}]}\r\n\r\n'
LAST = b'data: {"candidates":[{"content":{"parts":[{"text":"."}],"role":"model"},"finishReason":"STOP","index":0}]}\r\n\r\n'
CHUNKS = b"".join(b"%x\r\n%s\r\n" % (len(one), one) for one in [EVENT] * 99 + [LAST]) + b"0\r\n\r\n"
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n" + CHUNKS
WHOLE = b'{"candidates":[{"content":{"parts":[{"text":"word"}],"role":"model"},"finishReason":"STOP","index":0}]}'
UNARY = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(WHOLE), WHOLE)
SCRIPT = """wrk.method = "POST"
wrk.body = '{"contents":[{"parts":[{"text":"Hello"}]}]}'
wrk.headers["x-goog-api-key"] = "k"
"""


class Upstream(asyncio.Protocol):
    """Answers each request whose head and body came in one read, as wrk's do."""

    def connection_made(self, transport):
        self.transport, self.seen = transport, b""

    def data_received(self, data):
        self.seen += data
        while (end := self.seen.find(b"\r\n\r\n")) >= 0:
            head = self.seen[:end].lower()
            length = int(re.search(rb"content-length: (\d+)", head)[1])
            if len(self.seen) < end + 4 + length:
                return
            self.seen = self.seen[end + 4 + length :]
            self.transport.write(STREAM if b"stream" in head.split(b"\r\n")[0] else UNARY)


def upstream(port):
    async def serve():
        server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port)
        await server.serve_forever()

    asyncio.run(serve())


def free():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def processor(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1]) / 1024


def main(there):
    up = free()
    started = [subprocess.Popen([sys.executable, __file__, "--upstream", str(up)])]
    nginx, haproxy = free(), free()
    (there / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {there}/nginx.pid; error_log stderr crit; events {{ worker_connections 4096; }}\n"
        f"http {{ access_log off; client_body_temp_path {there}/b; proxy_temp_path {there}/p; fastcgi_temp_path {there}/f;"
        f" uwsgi_temp_path {there}/u; scgi_temp_path {there}/s; upstream up {{ server 127.0.0.1:{up}; keepalive 128; }}\n"
        f"server {{ listen 127.0.0.1:{nginx}; keepalive_requests 10000000; location / {{ proxy_pass http://up; proxy_http_version 1.1;"
        f" proxy_set_header Connection ''; proxy_buffering off; }} }} }}\n"
    )
    (there / "haproxy.cfg").write_text(
        "global\n maxconn 4096\n nbthread 1\ndefaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n"
        f"listen all\n bind 127.0.0.1:{haproxy}\n server up 127.0.0.1:{up}\n"
    )
    (there / "post.lua").write_text(SCRIPT)
    proxies = {
        "nginx": (nginx, ["nginx", "-e", "stderr", "-c", str(there / "nginx.conf")]),
        "haproxy": (haproxy, ["haproxy", "-q", "-db", "-f", str(there / "haproxy.cfg")]),
    }
    gateways = os.environ.get("GATEWAYS", f"gateway={GATEWAY}").split(",")
    for name, path in (one.split("=") for one in gateways):
        port = free()
        proxies[name] = (
            port,
            [path, "--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{free()}", "--log", "off",
             "--history", str(there / f"{name}.db"), "--upstream", f"http://127.0.0.1:{up}"],
        )
    pids = {}
    try:
        for name, (_, command) in proxies.items():
            started.append(subprocess.Popen(command, cwd=there))
            pids[name] = started[-1].pid
        time.sleep(2)
        print(f"{'':28}{'CPU µs/request':>16}{'x nginx':>10}{'requests/s':>12}{'RSS MiB':>10}{'requests':>10}")
        total = dict.fromkeys(proxies, 0)
        for what, path in (("unary", "generateContent"), ("100 chunks", "streamGenerateContent?alt=sse")):
            took, rate = {name: [] for name in proxies}, {name: [] for name in proxies}
            for _ in range(ROUNDS):
                for name, (port, _) in proxies.items():
                    url = f"http://127.0.0.1:{port}/v1beta/models/gemini-3.5-flash-lite:{path}"
                    wrk = ["wrk", "-t1", "-c64", f"-d{SECONDS}s", "-s", str(there / "post.lua"), url]
                    before = processor(pids[name])
                    said = subprocess.run(wrk, capture_output=True, text=True, check=True).stdout
                    many = int(re.search(r"(\d+) requests in", said)[1])
                    if bad := re.search(r"Non-2xx or 3xx responses: (\d+)", said):
                        sys.exit(f"{name}: {bad[1]} of {many} failed")
                    took[name].append((processor(pids[name]) - before) / many * 1e6)
                    rate[name].append(many / SECONDS)
                    total[name] += many
            for name in proxies:
                ratio = statistics.median(one / base for one, base in zip(took[name], took["nginx"]))
                print(f"{what + ', ' + name:28}{statistics.median(took[name]):16.1f}{ratio:10.2f}"
                      f"{statistics.median(rate[name]):12.0f}{resident(pids[name]):10.1f}{total[name]:10}")
    finally:
        for one in started:
            one.kill()


if sys.argv[1:2] == ["--upstream"]:
    with contextlib.suppress(KeyboardInterrupt):
        upstream(int(sys.argv[2]))
else:
    with tempfile.TemporaryDirectory() as there:
        main(pathlib.Path(there))
