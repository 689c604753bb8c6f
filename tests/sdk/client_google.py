"""The cases of google-genai. Arguments: the scripted gateway, the simulated one. Prints JSON lines."""

import asyncio
import json
import sys
import time

from google import genai
from google.genai import errors, types

GATE, SIMULATED = sys.argv[1:3]
KEY = "AIzaSy-sdk-python-000000000000000000000"


def client(url):
    return genai.Client(api_key=KEY, http_options=types.HttpOptions(base_url=url))


def tell(case, ok, note):
    print(json.dumps({"case": case, "ok": bool(ok), "note": str(note)}), flush=True)


def case(name):
    def run(check):
        try:
            tell(name, *check())
        except Exception as error:  # Whatever it is, it belongs into the table.
            tell(name, False, f"{type(error).__name__}: {error}"[:120])
    return run


def fails(client, model, code, status):
    began = time.monotonic()
    try:
        client.models.generate_content(model=model, contents="Hi")
    except errors.APIError as error:
        took = time.monotonic() - began
        return error.code == code and error.status == status, f"{type(error).__name__} {error.code} {error.status}, {took:.2f} s"
    return False, "no error"


gate, simulated = client(GATE), client(SIMULATED)


@case("unary")
def _():
    answer = gate.models.generate_content(model="good", contents="Hi")
    return answer.text == "Hello there, how are you?", f"{answer.usage_metadata.total_token_count} tokens"


@case("streaming")
def _():
    parts = [(time.monotonic(), chunk.text) for chunk in gate.models.generate_content_stream(model="good", contents="Hi")]
    spread = parts[-1][0] - parts[0][0]
    return len(parts) == 5 and spread > 0.2, f"{len(parts)} chunks over {spread * 1000:.0f} ms"


@case("unary, simulator")
def _():
    text = simulated.models.generate_content(model="gemini-3.5-flash", contents="Hi").text
    return text == "Echo: Hi", text


@case("streaming, simulator")
def _():
    parts = [chunk.text for chunk in simulated.models.generate_content_stream(model="gemini-3.5-flash", contents="Hi there")]
    return "".join(parts) == "Echo: Hi there" and len(parts) > 1, f"{len(parts)} chunks"


@case("list and count, simulator")
def _():
    models = list(simulated.models.list())
    tokens = simulated.models.count_tokens(model="gemini-3.5-flash", contents="Hello").total_tokens
    return len(models) > 3 and tokens > 0, f"{len(models)} models, {tokens} tokens"


def interact(client, model, **more):
    return client.interactions.create(model=model, input="Hi there", **more)


def said(events):
    events = list(events)
    deltas = [event.delta.text for event in events if event.event_type == "step.delta"]
    return "".join(deltas), [event.event_type for event in events]


@case("interaction, unary")
def _():
    made = interact(simulated, "gemini-3.8-flash")
    return made.status == "completed" and made.output_text == "Echo: Hi there", f"{made.usage.total_tokens} tokens"


@case("interaction, stream")
def _():
    text, kinds = said(interact(simulated, "gemini-3.8-flash", stream=True))
    return text == "Echo: Hi there" and kinds[-1] == "interaction.completed", f"{len(kinds)} events"


@case("interaction, error before output")
def _():
    made = interact(gate, "once-interaction-python")
    return made.output_text == "Hello there, how are you?", "503 once, absorbed"


@case("interaction, error told")
def _():
    try:
        interact(gate, "key")
    except Exception as error:
        return error.status_code == 403 and "permission_denied" in str(error), f"{type(error).__name__} {error.status_code}"
    return False, "no error"


@case("interaction, error after output")
def _():
    text, kinds = said(interact(gate, "late", stream=True))
    return text == "Hello there" and kinds[-1] == "error", f"{len(kinds)} events, the last one {kinds[-1]}"


@case("interaction, continuation")
def _():
    made = interact(gate, "long", automatic_continuation=True)
    first = interact(gate, "long", automatic_continuation=False)
    ok = made.output_text == "Hello there, how are you?" and first.status == "requires_continuation"
    return ok, f"{len(made.continuation_ids or [])} hops"


@case("interaction, cancelled")
def _():
    made = interact(simulated, "gemini-3.8-flash", background=True)
    cancelled = simulated.interactions.cancel(id=made.id)
    seen = simulated.interactions.get(id=made.id)
    ok = (made.status, cancelled.status, seen.status) == ("in_progress", "cancelled", "cancelled")
    return ok, f"{made.status}, then {seen.status}"


@case("interaction, taken up again")
def _():
    events = list(interact(simulated, "gemini-3.8-flash", stream=True, background=True))
    at = next(i for i, event in enumerate(events) if event.event_type == "step.delta")
    made = events[0].interaction
    again = simulated.interactions.get(id=made.id, stream=True, last_event_id=events[at].event_id)
    whole, _ = said([*events[:at + 1], *again])
    return whole == "Echo: Hi there", f"behind event {events[at].event_id}"


case("error 400")(lambda: fails(gate, "bad", 400, "INVALID_ARGUMENT"))
case("error 403")(lambda: fails(gate, "key", 403, "PERMISSION_DENIED"))
case("error 404, simulator")(lambda: fails(simulated, "gemini-9", 404, "NOT_FOUND"))


@case("503 once, absorbed")
def _():
    return gate.models.generate_content(model="once-python", contents="Hi").text.startswith("Hello"), "answered"


@case("quota of a minute, waited")
def _():
    began = time.monotonic()
    text = gate.models.generate_content(model="minute-python", contents="Hi").text
    return text.startswith("Hello"), f"answered after {time.monotonic() - began:.1f} s"


case("quota of the day, 429")(lambda: fails(gate, "day", 429, "RESOURCE_EXHAUSTED"))
case("the same again, not sent")(lambda: fails(gate, "day", 429, "RESOURCE_EXHAUSTED"))


@case("outage, 503 at once")
def _():
    for _ in range(16):
        fails(gate, "down", 503, "UNAVAILABLE")
    began = time.monotonic()
    ok, note = fails(gate, "down", 503, "UNAVAILABLE")
    return ok and time.monotonic() - began < 0.5, note


@case("cancelled stream")
def _():
    stream = gate.models.generate_content_stream(model="slow", contents="Hi")
    text = next(stream).text
    stream.close()
    return text == "Hello", "closed after the first chunk"


@case("cancelled call")
def _():
    async def run():
        # Held: a client that nobody holds closes itself.
        held = client(GATE)
        call = asyncio.create_task(held.aio.models.generate_content(model="slow", contents="Hi"))
        await asyncio.sleep(0.5)
        call.cancel()
        try:
            await call
        except asyncio.CancelledError:
            return True, "cancelled after 0.5 s"
        return False, "not cancelled"
    return asyncio.run(run())
