// The cases of @google/genai. Arguments: the scripted gateway, the simulated one. Prints JSON lines.

import { GoogleGenAI } from "@google/genai";

const [GATE, SIMULATED] = process.argv.slice(2);
const apiKey = "AIzaSy-sdk-javascript-00000000000000000";
const client = (baseUrl) => new GoogleGenAI({ apiKey, httpOptions: { baseUrl } });
const [gate, simulated] = [client(GATE).models, client(SIMULATED).models];
const [gateInteractions, simulatedInteractions] = [client(GATE).interactions, client(SIMULATED).interactions];
const contents = "Hi";

async function test(name, check) {
  let ok, note;
  try {
    [ok, note] = await check();
  } catch (error) {
    // Whatever it is, it belongs into the table.
    [ok, note] = [false, `${error.name}: ${error.message}`.slice(0, 120)];
  }
  console.log(JSON.stringify({ case: name, ok: Boolean(ok), note: String(note) }));
}

async function fails(models, model, code) {
  const began = performance.now();
  try {
    await models.generateContent({ model, contents });
  } catch (error) {
    const took = ((performance.now() - began) / 1000).toFixed(2);
    return [error.status === code, `${error.name} ${error.status}, ${took} s`];
  }
  return [false, "no error"];
}

async function chunks(models, model) {
  const parts = [];
  for await (const chunk of await models.generateContentStream({ model, contents })) {
    parts.push([performance.now(), chunk.text]);
  }
  return parts;
}

await test("unary", async () => {
  const answer = await gate.generateContent({ model: "good", contents });
  return [answer.text === "Hello there, how are you?", `${answer.usageMetadata.totalTokenCount} tokens`];
});
await test("streaming", async () => {
  const parts = await chunks(gate, "good");
  const spread = parts.at(-1)[0] - parts[0][0];
  return [parts.length === 5 && spread > 200, `${parts.length} chunks over ${spread.toFixed(0)} ms`];
});
await test("unary, simulator", async () => {
  const { text } = await simulated.generateContent({ model: "gemini-3.5-flash", contents });
  return [text === "Echo: Hi", text];
});
await test("streaming, simulator", async () => {
  const parts = await chunks(simulated, "gemini-3.5-flash");
  return [parts.map(([, text]) => text).join("") === "Echo: Hi" && parts.length > 1, `${parts.length} chunks`];
});
const interact = (on, model, more = {}) => on.create({ model, input: "Hi there", ...more });
async function said(events) {
  const kinds = [];
  let text = "";
  for await (const event of events) {
    kinds.push(event.event_type);
    if (event.event_type === "step.delta") text += event.delta.text;
  }
  return [text, kinds];
}
const whole = (made) => made.steps.flatMap((step) => step.content ?? []).map((part) => part.text ?? "").join("");

await test("interaction, unary", async () => {
  const made = await interact(simulatedInteractions, "gemini-3.8-flash");
  return [made.status === "completed" && whole(made) === "Echo: Hi there", `${made.usage.total_tokens} tokens`];
});
await test("interaction, stream", async () => {
  const [text, kinds] = await said(await interact(simulatedInteractions, "gemini-3.8-flash", { stream: true }));
  return [text === "Echo: Hi there" && kinds.at(-1) === "interaction.completed", `${kinds.length} events`];
});
await test("interaction, error before output", async () => {
  const made = await interact(gateInteractions, "once-interaction-javascript");
  return [whole(made) === "Hello there, how are you?", "503 once, absorbed"];
});
await test("interaction, error told", async () => {
  try {
    await interact(gateInteractions, "key");
  } catch (error) {
    const status = error.status ?? error.statusCode;
    return [status === 403 && error.name === "PermissionDeniedError", `${error.name} ${status}`];
  }
  return [false, "no error"];
});
await test("interaction, error after output", async () => {
  const [text, kinds] = await said(await interact(gateInteractions, "late", { stream: true }));
  return [text === "Hello there" && kinds.at(-1) === "error", `${kinds.length} events, the last one ${kinds.at(-1)}`];
});
await test("interaction, cancelled", async () => {
  const made = await interact(simulatedInteractions, "gemini-3.8-flash", { background: true });
  const cancelled = await simulatedInteractions.cancel(made.id);
  const seen = await simulatedInteractions.get(made.id);
  const ok = [made.status, cancelled.status, seen.status].join() === "in_progress,cancelled,cancelled";
  return [ok, `${made.status}, then ${seen.status}`];
});
await test("error 400", () => fails(gate, "bad", 400));
await test("error 403", () => fails(gate, "key", 403));
await test("error 404, simulator", () => fails(simulated, "gemini-9", 404));
await test("503 once, absorbed", async () => {
  const { text } = await gate.generateContent({ model: "once-javascript", contents });
  return [text.startsWith("Hello"), "answered"];
});
await test("quota of a minute, waited", async () => {
  const began = performance.now();
  const { text } = await gate.generateContent({ model: "minute-javascript", contents });
  return [text.startsWith("Hello"), `answered after ${((performance.now() - began) / 1000).toFixed(1)} s`];
});
await test("quota of the day, 429", () => fails(gate, "day", 429));
await test("the same again, not sent", () => fails(gate, "day", 429));
await test("outage, 503 at once", async () => {
  for (let i = 0; i < 16; i++) await fails(gate, "down", 503);
  const began = performance.now();
  const [ok, note] = await fails(gate, "down", 503);
  return [ok && performance.now() - began < 500, note];
});
await test("cancelled stream", async () => {
  const abort = new AbortController();
  const config = { abortSignal: abort.signal };
  const stream = await gate.generateContentStream({ model: "slow", contents, config });
  const first = await stream.next();
  abort.abort();
  return [first.value.text === "Hello", "aborted after the first chunk"];
});
await test("cancelled call", async () => {
  const abort = new AbortController();
  const config = { abortSignal: abort.signal };
  setTimeout(() => abort.abort(), 500);
  try {
    await gate.generateContent({ model: "slow", contents, config });
  } catch {
    return [true, "aborted after 0.5 s"];
  }
  return [false, "not aborted"];
});
// An open connection would keep it waiting.
process.exit(0);
