"""The cases of the OpenAI SDK on the compatible path. Arguments: the scripted gateway, the simulated one. Prints JSON lines."""

import asyncio
import json
import sys
import time

import openai

GATE, SIMULATED = (url + "/v1beta/openai/" for url in sys.argv[1:3])
KEY = "AIzaSy-sdk-openai-000000000000000000000"
ASK = [{"role": "user", "content": "Hi"}]


def client(url, of=openai.OpenAI):
    return of(api_key=KEY, base_url=url, max_retries=0)


def tell(case, ok, note):
    print(json.dumps({"case": case, "ok": bool(ok), "note": str(note)}), flush=True)


def case(name):
    def run(check):
        try:
            tell(name, *check())
        except Exception as error:  # Whatever it is, it belongs into the table.
            tell(name, False, f"{type(error).__name__}: {error}"[:120])
    return run


def fails(client, model, code):
    began = time.monotonic()
    try:
        client.chat.completions.create(model=model, messages=ASK)
    except openai.APIStatusError as error:
        took = time.monotonic() - began
        return error.status_code == code, f"{type(error).__name__} {error.status_code}, {took:.2f} s"
    return False, "no error"


gate, simulated = client(GATE), client(SIMULATED)


def text(client, model):
    return client.chat.completions.create(model=model, messages=ASK).choices[0].message.content


@case("unary")
def _():
    return text(gate, "good") == "Hello there, how are you?", "answered"


@case("streaming")
def _():
    stream = gate.chat.completions.create(model="good", messages=ASK, stream=True)
    parts = [(time.monotonic(), chunk.choices[0].delta.content) for chunk in stream]
    spread = parts[-1][0] - parts[0][0]
    return len(parts) == 5 and spread > 0.2, f"{len(parts)} chunks over {spread * 1000:.0f} ms"


@case("unary, simulator")
def _():
    answer = text(simulated, "gemini-3.5-flash")
    return answer == "Echo: Hi", answer


case("error 400")(lambda: fails(gate, "bad", 400))
case("error 403")(lambda: fails(gate, "key", 403))
case("error 404, simulator")(lambda: fails(simulated, "gemini-9", 404))
case("503 once, absorbed")(lambda: (text(gate, "once-openai").startswith("Hello"), "answered"))


@case("quota of a minute, waited")
def _():
    began = time.monotonic()
    answer = text(gate, "minute-openai")
    return answer.startswith("Hello"), f"answered after {time.monotonic() - began:.1f} s"


case("quota of the day, 429")(lambda: fails(gate, "day", 429))
case("the same again, not sent")(lambda: fails(gate, "day", 429))


@case("outage, 503 at once")
def _():
    for _ in range(16):
        fails(gate, "down", 503)
    began = time.monotonic()
    ok, note = fails(gate, "down", 503)
    return ok and time.monotonic() - began < 0.5, note


@case("cancelled stream")
def _():
    stream = gate.chat.completions.create(model="slow", messages=ASK, stream=True)
    word = next(iter(stream)).choices[0].delta.content
    stream.close()
    return word == "Hello", "closed after the first chunk"


@case("cancelled call")
def _():
    async def run():
        asked = client(GATE, openai.AsyncOpenAI).chat.completions.create(model="slow", messages=ASK)
        call = asyncio.create_task(asked)
        await asyncio.sleep(0.5)
        call.cancel()
        try:
            await call
        except asyncio.CancelledError:
            return True, "cancelled after 0.5 s"
        return False, "not cancelled"
    return asyncio.run(run())
