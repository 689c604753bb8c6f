"""300 refusals in a row of requests with 200 kB, by two clients that send the whole body first. Argument: the scripted gateway. Prints JSON lines."""

import asyncio
import http.client
import json
import sys
from urllib.parse import urlsplit

import aiohttp

GATE = sys.argv[1]
PATH = "/v1beta/models/day:generateContent"
BODY = json.dumps({"contents": [{"parts": [{"text": "x" * 200_000}]}]}).encode()
MANY = 300


def tell(case, seen, broken):
    ok = seen == {429: MANY} and not broken
    note = ", ".join(f"{many} x {status}" for status, many in seen.items()) + f", {len(broken)} broken"
    print(json.dumps({"case": case, "ok": ok, "note": note + "".join(f", {what}" for what in broken[:1])}), flush=True)


def headers(who):
    return {"x-goog-api-key": f"AIzaSy-refusals-{who}-00000000000000000000", "content-type": "application/json"}


def standard():
    seen, broken = {}, []
    connection = http.client.HTTPConnection(urlsplit(GATE).netloc, timeout=30)
    for n in range(MANY + 1):
        try:
            connection.request("POST", PATH, body=BODY, headers=headers("standard"))
            answer = connection.getresponse()
            answer.read()
            if n > 0:
                seen[answer.status] = seen.get(answer.status, 0) + 1
        except (OSError, http.client.HTTPException) as error:
            broken.append(type(error).__name__)
            connection.close()
    tell("300 refusals, http.client", seen, broken)


async def asynchronous():
    seen, broken = {}, []
    async with aiohttp.ClientSession() as session:
        for n in range(MANY + 1):
            try:
                async with session.post(GATE + PATH, data=BODY, headers=headers("aiohttp")) as answer:
                    await answer.read()
                    if n > 0:
                        seen[answer.status] = seen.get(answer.status, 0) + 1
            except (OSError, aiohttp.ClientError) as error:
                broken.append(type(error).__name__)
    tell(f"300 refusals, aiohttp {aiohttp.__version__}", seen, broken)


standard()
asyncio.run(asynchronous())
