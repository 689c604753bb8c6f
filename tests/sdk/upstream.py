"""An upstream that does what the model's name says, in the Gemini API's form and in its OpenAI-compatible one.

  good       answers; a stream has five events
  slow       answers for 30 s, and notes who leaves
  bad        400, key  403, day  429 for the rest of the day, down  503 for ever
  once-...   503 once, then answers
  minute-... 429 for a second once, then answers

Interactions as well: good, the failures above, and

  late       an error after two pieces of output
  long       stops for want of tokens after two words, and goes on by its token
"""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WORDS = ["Hello", " there", ", how", " are", " you?"]
TYPE = "type.googleapis.com/google.rpc."


def error(code, status, message, details=()):
    return code, {"error": {"code": code, "message": message, "status": status, "details": list(details)}}


def quota(identifier, value, delay):
    return [
        {"@type": TYPE + "QuotaFailure", "violations": [{
            "quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests",
            "quotaId": identifier, "quotaValue": value}]},
        {"@type": TYPE + "RetryInfo", "retryDelay": delay},
    ]


def failure(model, earlier):
    """What goes wrong with the call for this model, after so many earlier ones; None if nothing does."""
    if model == "bad":
        return error(400, "INVALID_ARGUMENT", "Invalid value at 'contents'.")
    if model == "key":
        return error(403, "PERMISSION_DENIED", "Your API key was reported as leaked.")
    if model == "day":
        day = quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier", "50", "17s")
        return error(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota.", day)
    if model == "down" or model.startswith("once-") and earlier == 0:
        return error(503, "UNAVAILABLE", "The model is overloaded. Please try again later.")
    if model.startswith("minute-") and earlier == 0:
        minute = quota("GenerateRequestsPerMinutePerProjectPerModel-FreeTier", "10", "0.5s")
        return error(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota.", minute)
    return None


class State:
    def __init__(self):
        self.lock = threading.Lock()
        self.calls = {}
        self.left = {}

    def call(self, model):
        with self.lock:
            earlier = self.calls.get(model, 0)
            self.calls[model] = earlier + 1
            return earlier

    def leave(self, model):
        with self.lock:
            self.left[model] = time.time()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state = State()

    def log_message(self, *_):
        pass

    def reply(self, code, body, content_type="application/json; charset=UTF-8"):
        data = json.dumps(body, indent=2).encode()
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        """For the script: who has called, and who has left."""
        with self.state.lock:
            self.reply(200, {"calls": dict(self.state.calls), "left": dict(self.state.left)})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        request = json.loads(body or b"{}")
        if "/interactions" in self.path:
            return self.interaction(request)
        openai = "/openai/" in self.path
        if openai:
            model, streamed = request["model"], request.get("stream", False)
        else:
            model, method = self.path.split("?")[0].rsplit("/", 1)[1].split(":")
            streamed = method.startswith("stream")
        model = model.removeprefix("models/")
        failed = failure(model, self.state.call(model))
        if failed:
            # Google's OpenAI-compatible surface puts its errors into an array.
            self.reply(failed[0], [failed[1]] if openai else failed[1])
        elif model == "slow":
            self.slow(model, openai, streamed)
        elif streamed:
            self.stream(self.events(openai), 0.1)
        else:
            self.reply(200, self.answer(openai, "".join(WORDS)))

    def interaction(self, request):
        model = request["model"].removeprefix("models/")
        failed = failure(model, self.state.call(model))
        if failed:
            word = {429: "too_many_requests", 503: "service_unavailable", 403: "permission_denied"}
            return self.reply(failed[0], {"error": {"code": word.get(failed[0], "invalid_request"), "message": "No."}})
        # A token says how many words were said before.
        said = int(request.get("continuation_token", "0").removeprefix("after-"))
        words = WORDS[said:said + 2] if model == "long" else WORDS
        more = said + len(words) < len(WORDS)
        made = {"id": f"v1_{model}_{said}", "status": "requires_continuation" if more else "completed",
                "model": model, "created": "2026-11-29T00:00:00Z", "updated": "2026-11-29T00:00:00Z"}
        if more:
            made["continuation_token"] = f"after-{said + len(words)}"
        usage = {"total_input_tokens": 2, "total_output_tokens": len(words), "total_tokens": 2 + len(words)}
        if not request.get("stream"):
            content = [{"type": "text", "text": "".join(words)}]
            return self.reply(200, {**made, "usage": usage, "steps": [{"type": "model_output", "content": content}]})
        events = [{"event_type": "interaction.created", "interaction": {**made, "status": "in_progress"}},
                  {"event_type": "step.start", "index": 0, "step": {"type": "model_output", "content": []}}]
        events += [{"event_type": "step.delta", "index": 0, "delta": {"type": "text", "text": word}} for word in words]
        if model == "late":
            del events[4:]
            events.append({"event_type": "error", "error": {"code": "internal_error", "message": "Something broke."}})
        else:
            events.append({"event_type": "step.stop", "index": 0})
            events.append({"event_type": "interaction.completed", "interaction": {**made, "usage": usage}})
        for number, event in enumerate(events):
            event["event_id"] = str(number + 1)
        self.stream([*events, "[DONE]"], 0.05)

    def answer(self, openai, text, last=True):
        if openai:
            return {"id": "x", "object": "chat.completion", "created": 1, "model": "good",
                    "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
                    "usage": {"prompt_tokens": 2, "completion_tokens": 5, "total_tokens": 7}}
        candidate = {"content": {"role": "model", "parts": [{"text": text}]}, "index": 0}
        answer = {"candidates": [candidate], "modelVersion": "good"}
        if last:
            candidate["finishReason"] = "STOP"
            answer["usageMetadata"] = {"promptTokenCount": 2, "candidatesTokenCount": 5, "totalTokenCount": 7}
        return answer

    def events(self, openai):
        for i, word in enumerate(WORDS):
            last = i == len(WORDS) - 1
            if openai:
                choice = {"index": 0, "delta": {"role": "assistant", "content": word},
                          "finish_reason": "stop" if last else None}
                yield {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "good", "choices": [choice]}
            else:
                yield self.answer(False, word, last)
        if openai:
            yield "[DONE]"

    def stream(self, events, pause):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in events:
            data = event if isinstance(event, str) else json.dumps(event)
            data = f"data: {data}\r\n\r\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()
            time.sleep(pause)
        self.wfile.write(b"0\r\n\r\n")

    def slow(self, model, openai, streamed):
        """Nothing, or one event and then nothing, until the other side closes."""
        self.close_connection = True
        if streamed:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            event = json.dumps(next(self.events(openai)))
            self.wfile.write(f"data: {event}\r\n\r\n".encode())
            self.wfile.flush()
        self.connection.settimeout(30)
        try:
            self.connection.recv(1)
            self.state.leave(model)
        except TimeoutError:
            pass
        except OSError:
            self.state.leave(model)


def start():
    """The server's base URL; it runs in a thread."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"
