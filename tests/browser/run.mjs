// The gateway's page in a real browser, while the simulator has a bad day.
//
//     node tests/browser/run.mjs
//
// Needs cargo, node 20 with npm, and Chromium (`CHROMIUM`, or /usr/bin/chromium). Installs playwright-core below target/browser and
// leaves screenshots there. Nothing leaves the machine. Exit code: 0 if everything held.

import { execFileSync, spawn } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), "../..");
const TARGET = process.env.CARGO_TARGET_DIR || join(ROOT, "target");
const LOCAL = join(TARGET, "browser");
const CHROMIUM = process.env.CHROMIUM || "/usr/bin/chromium";
const PATIENCE = 20_000;

let held = 0;
const failures = [];
function check(what, is, should = true) {
  if (JSON.stringify(is) === JSON.stringify(should)) held += 1;
  else failures.push(`${what}: ${JSON.stringify(is)}, not ${JSON.stringify(should)}`);
}

// ===== processes =====

const started = [];
async function start(program, args, line) {
  const child = spawn(program, args, { stdio: ["pipe", "pipe", "pipe"] });
  started.push(child);
  const lines = createInterface({ input: child[line] });
  const first = await Promise.race([
    new Promise((done) => lines.once("line", done)),
    new Promise((_, fail) => child.once("exit", (code) => fail(new Error(`${program} ended with ${code}`)))),
  ]);
  child.stdout.resume();
  child.stderr.resume();
  return { child, first };
}

// ===== traffic =====

const FLASH = "gemini-3.5-flash-lite", PRO = "gemini-3.8-flash";
const KEYS = { one: "AIzaSyThe-first-client-0000000000000000", two: "AIzaSyThe-second-client-000000000000000" };
const sent = [];
async function call(gate, who, model, text, headers = {}) {
  const body = JSON.stringify({ contents: [{ parts: [{ text }] }] });
  const answer = await fetch(`${gate}/v1beta/models/${model}:generateContent`, {
    method: "POST", body, headers: { "x-goog-api-key": KEYS[who], "content-type": "application/json", ...headers },
  });
  const got = await answer.json();
  const usage = got.usageMetadata;
  sent.push({ who, model, status: answer.status, bytes: body.length, input: usage ? usage.promptTokenCount : 0 });
}
async function traffic(gate, many, who) {
  const calls = Array.from({ length: many }, (_, i) => [i % 3 ? FLASH : PRO, "x".repeat(i % 7 === 0 ? 20_000 : 40)]);
  await Promise.all(Array.from({ length: 8 }, async () => {
    for (let next = calls.pop(); next; next = calls.pop()) await call(gate, who, ...next);
  }));
}

// ===== CSV =====

function parse(text) {
  const rows = [[]];
  let field = "", inside = false;
  for (let i = 0; i < text.length; i += 1) {
    const c = text[i];
    if (inside && c === '"' && text[i + 1] === '"') { field += c; i += 1; }
    else if (c === '"') inside = !inside;
    else if (!inside && c === ",") { rows.at(-1).push(field); field = ""; }
    else if (!inside && c === "\r") { rows.at(-1).push(field); field = ""; rows.push([]); i += 1; }
    else field += c;
  }
  rows.pop();
  const heads = rows.shift();
  return rows.map((row) => Object.fromEntries(row.map((value, i) => [heads[i], value])));
}
const sum = (rows, of) => rows.reduce((all, row) => all + Number(of(row)), 0);
const tally = (names) => names.reduce((all, name) => ({ ...all, [name]: (all[name] || 0) + 1 }), {});
const sorted = (map) => Object.fromEntries(Object.entries(map).sort(([a], [b]) => (a < b ? -1 : 1)));
function sample(metrics, name) {
  const line = metrics.split("\n").find((other) => other.startsWith(`${name} `));
  return line === undefined ? null : Number(line.slice(name.length + 1));
}

// ===== the browser =====

/** Presses Tab until the element has the focus, as somebody without a mouse does. */
async function tabTo(page, selector) {
  for (let i = 0; i < 300; i += 1) {
    if (await page.evaluate((at) => document.activeElement?.matches(at), selector)) return true;
    await page.keyboard.press("Tab");
  }
  return false;
}
async function until(what, is) {
  const end = Date.now() + PATIENCE;
  while (Date.now() < end) {
    if (await is()) { held += 1; return; }
    await new Promise((done) => setTimeout(done, 100));
  }
  failures.push(`${what}: not within ${PATIENCE} ms`);
}

/** A check of what follows a key press, an event or an answer: it holds as soon as it does, and says what it saw last. */
async function becomes(what, of, should = true) {
  const end = Date.now() + PATIENCE;
  let is;
  do {
    is = await of();
    if (JSON.stringify(is) === JSON.stringify(should)) { held += 1; return; }
    await new Promise((done) => setTimeout(done, 50));
  } while (Date.now() < end);
  failures.push(`${what}: ${JSON.stringify(is)}, not ${JSON.stringify(should)}, for ${PATIENCE} ms`);
}

async function watch(browser, gate, scheme) {
  const context = await browser.newContext({ colorScheme: scheme, viewport: { width: 1280, height: 900 }, acceptDownloads: true });
  const page = await context.newPage();
  const said = [], asked = new Set();
  page.on("console", (message) => { if (["error", "warning"].includes(message.type())) said.push(message.text()); });
  page.on("pageerror", (error) => said.push(String(error)));
  page.on("request", (request) => asked.add(new URL(request.url()).protocol === "data:" ? "data:" : new URL(request.url()).origin));
  await page.goto(`${gate}/page`);
  await page.waitForSelector(".state:not(.away)", { timeout: PATIENCE });
  return { context, page, said, asked };
}
const text = (page, id) => page.evaluate((at) => document.getElementById(at).textContent, id);
const first = (totals) => Number(totals.split(" ")[0].replaceAll(",", ""));

async function main() {
  mkdirSync(LOCAL, { recursive: true });
  execFileSync("cargo", ["build", "--quiet", "-p", "tower-gemini-gateway", "--bins", "--examples"], { cwd: ROOT, stdio: "inherit" });
  if (!existsSync(join(LOCAL, "node_modules/playwright-core"))) {
    execFileSync("npm", ["install", "--silent", "--no-audit", "--no-fund", "--prefix", LOCAL, "playwright-core"], { stdio: "inherit" });
  }
  const { chromium } = createRequire(join(LOCAL, "index.js"))("playwright-core");
  const file = join(LOCAL, "calls.db");
  for (const end of ["", "-wal", "-shm"]) rmSync(file + end, { force: true });
  const { first: upstream } = await start(join(TARGET, "debug/examples/bad_day"), [], "stdout");
  const { child, first: told } = await start(join(TARGET, "debug/tower-gemini-gateway"), [
    "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log", "off", "--upstream", upstream, "--history", file, "--attempts", "3", "--requests-per-minute", "600",
  ], "stderr");
  const gate = told.split(" ")[1], admin = told.match(/pages at (\S+)\/page/)[1];
  const browser = await chromium.launch({
    executablePath: CHROMIUM,
    args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });

  // Both listeners know how the gateway is, and administrators have no upstream.
  check("ready", [(await fetch(`${gate}/readyz`)).status, (await fetch(`${admin}/readyz`)).status], [200, 200]);
  check("no call for administrators", (await fetch(`${admin}/v1beta/models`)).status, 404);

  // Numbers move, without a reload.
  const { context, page, said, asked } = await watch(browser, admin, "light");
  await becomes("nothing yet", async () => first(await text(page, "totals")), 0);
  await traffic(gate, 60, "one");
  await until("the totals follow", async () => first(await text(page, "totals")) === 60);
  // The rate is of whole seconds, and comes by an event; the totals come by an answer, which may be there before.
  await becomes("the rate moves", async () => Number(await text(page, "rate")) > 0);
  await traffic(gate, 40, "two");
  await until("and again", async () => first(await text(page, "totals")) === 100);
  await until("the circuits are there", async () => (await text(page, "models")).includes("gemini-3.8-flash"));
  await becomes("the quota is there", async () => (await text(page, "models")).includes("of "));

  // Odd input is text and nothing else.
  await call(gate, "one", "gemini-9", "hi", { "x-request-id": "=1+1,<script>window.pwned=1</script>" });
  await until("the odd one is listed", async () => (await text(page, "rows")).includes("gemini-9"));
  check("no element of it", await page.evaluate(() => [document.images.length, document.scripts.length, window.pwned === undefined]), [0, 1, true]);

  // A failure is opened, with the keyboard only.
  check("a failure can be reached", await tabTo(page, "#rows button"));
  await page.keyboard.press("Enter");
  await page.waitForSelector(".detail", { timeout: PATIENCE });
  const odds = await page.evaluate(() => document.querySelector(".detail").textContent);
  check("its request id is text", odds.includes("=1+1,<script>window.pwned=1</script>"));
  const detail = await page.evaluate(() => {
    const at = document.querySelector(".detail");
    return { kind: at.querySelector(".chip").textContent, link: at.querySelector("a").href, steps: at.querySelectorAll("ol.line li").length };
  });
  check("the verdict", detail.kind, "not_found");
  check("the link", detail.link, "https://ai.google.dev/gemini-api/docs/models");
  check("the remedy", odds.includes("exact name"));
  check("its way", detail.steps >= 2);
  // Three events, each of which redraws the numbers.
  await page.evaluate(() => new Promise((done) => {
    let events = 0;
    new MutationObserver((_, of) => { events += 1; if (events === 3) { of.disconnect(); done(); } }).observe(document.getElementById("rate").parentNode, { childList: true, subtree: true, characterData: true });
    setTimeout(done, 8000);
  }));
  check("it stays open while numbers move", await page.locator(".detail").count(), 1);
  check("the focus stays, too", await page.evaluate(() => document.activeElement.getAttribute("aria-expanded")), "true");
  await page.keyboard.press("Escape");
  await becomes("Escape closes it", () => page.locator(".detail:visible").count(), 0);
  const retried = page.locator("#rows tr:has(td:nth-child(6):text-is('3')) button").first();
  await retried.focus();
  await page.keyboard.press("Enter");
  const way = await page.locator(".detail:visible").textContent();
  // The third fails like the others, or is an answer, which may be a blocked one.
  check("attempts and waits are on its line", /no\. 1.*waits.*no\. 2.*waits.*(no\. 3|answered)/s.test(way) || way);
  await page.screenshot({ path: join(LOCAL, "light.png"), fullPage: true });
  await page.keyboard.press("Escape");

  // Filtered by client: the second one, whose label nobody knows before. It has sent fewer.
  // The list of calls and these sums are answers of their own: one may be newer.
  const byClient = () => page.evaluate(() => [...document.querySelectorAll("#by-client tbody tr")].map((row) => [row.cells[0].textContent, Number(row.cells[1].textContent)]));
  await becomes("calls of each client", async () => (await byClient()).map(([, n]) => n).sort((a, b) => a - b), [40, 61]);
  const labels = await byClient();
  const second = labels.find(([, n]) => n === 40)[0];
  await page.evaluate(() => document.activeElement.blur());
  check("the client can be reached", await tabTo(page, "#client"));
  await page.keyboard.type(second);
  await becomes("and chosen by typing", () => page.evaluate(() => document.getElementById("client").value), `=${second}`);
  await until("only its calls count", async () => first(await text(page, "totals")) === 40);
  await until("only its calls are listed", async () => page.evaluate((name) => {
    const names = [...document.querySelectorAll("#rows > tr[class], #rows > tr:not([id])")].map((row) => row.cells[2].textContent);
    return names.length > 0 && names.every((other) => other === name);
  }, second));
  check("the list", await tabTo(page, "#shown"));
  await page.keyboard.type("all calls");
  await until("all of its calls are listed", async () => (await page.locator("#rows > tr:not([id])").count()) === 40);

  // CSV of what one sees.
  const download = async () => {
    check("the link to the CSV can be reached", await tabTo(page, "#csv"));
    const [got] = await Promise.all([page.waitForEvent("download", { timeout: PATIENCE }), page.keyboard.press("Enter")]);
    check("its name", got.suggestedFilename(), "calls.csv");
    return parse(readFileSync(await got.path(), "utf8"));
  };
  const ofSecond = await download();
  check("rows of one client", [ofSecond.length, new Set(ofSecond.map((row) => row.client)).size], [40, 1]);
  check("Clear can be reached", await tabTo(page, "button[type=reset]"));
  await page.keyboard.press("Enter");
  check("the list again", await tabTo(page, "#shown"));
  await page.keyboard.type("all calls");
  await until("all calls count again", async () => first(await text(page, "totals")) === 101);
  const rows = await download();
  const metrics = await (await fetch(`${admin}/metrics`)).text();
  check("rows are what was sent", rows.length, sent.length);
  const of = (list, by) => sorted(tally(list.map(by)));
  check("by status, as sent", of(rows, (row) => row.status), of(sent, (one) => one.status));
  check("by model, as sent", of(rows, (row) => row.model), of(sent, (one) => one.model));
  check("by client, as sent", Object.values(tally(rows.map((row) => row.client))).sort(), Object.values(tally(sent.map((one) => one.who))).sort());
  check("bytes, as sent", sum(rows, (row) => row.request_bytes), sum(sent, (one) => one.bytes));
  check("input tokens, as answered", sum(rows, (row) => row.input_tokens), sum(sent, (one) => one.input));
  for (const status of ["2xx", "4xx", "5xx"]) {
    const many = rows.filter((row) => row.status[0] === status[0]).length;
    check(`${status}, as /metrics`, many, sample(metrics, `gateway_requests_total{status="${status}"}`));
  }
  check("attempts, as /metrics", sum(rows, (row) => row.attempts), sample(metrics, "gateway_upstream_calls_total"));
  check("input tokens, as /metrics", sum(rows, (row) => row.input_tokens), sample(metrics, 'gateway_tokens_total{kind="input"}'));
  const status = await (await fetch(`${admin}/status`)).json();
  check("429s, as /status", sum(rows, (row) => row.attempts_429), sum(status.quotas, (quota) => quota.refused_by_google));
  check("500s, as /metrics", sum(rows, (row) => row.attempts_500), sample(metrics, 'gateway_failed_attempts_total{kind="internal"}') || 0);
  check("recovered, as /metrics", rows.filter((row) => row.status === "200" && (Number(row.attempts) > 1 || Number(row.waited_ms) > 0)).length, sample(metrics, "gateway_recovered_total"));
  check("none lost", [sample(metrics, "gateway_history_lost_total"), sample(metrics, "gateway_history_written_total")], [0, sent.length]);
  check("a formula is none", rows.some((row) => row.request_id === "'=1+1,<script>window.pwned=1</script>"));
  check("some failed and some recovered", sample(metrics, "gateway_recovered_total") > 0 && rows.some((row) => row.kind));

  // Whatever a text in the figures is, it stays a text.
  const odd = `"><img src=x onerror="window.pwned=1"><script>window.pwned=1</script>`;
  const oddly = (value) => (typeof value === "string" ? odd : Array.isArray(value) ? value.map(oddly)
    : value && typeof value === "object" ? Object.fromEntries(Object.entries(value).map(([name, of]) => [name, oddly(of)])) : value);
  // The page may have left a request, or be closed, by the time that it is answered.
  const gone = () => {};
  const strange = await browser.newContext({ acceptDownloads: true });
  await strange.route(/\/page\/(calls|summary)/, async (route) => {
    // Not by the browser's own client, whose answers go when the page has left the request.
    let data = oddly(await (await fetch(route.request().url())).json());
    if (Array.isArray(data)) data = data.map((one) => ({ ...one, docs: "javascript:window.pwned=1" }));
    await route.fulfill({ json: data }).catch(gone);
  });
  await strange.route(/\/page\/events/, async (route) => {
    const now = oddly(await (await fetch(`${admin}/page/now`)).json());
    now.status.quotas.forEach((quota) => { quota.fleet = { members: 2, waiting: 7, is_lost: true }; });
    await route.fulfill({ contentType: "text/event-stream", body: `data: ${JSON.stringify({ ...now, live: { ...now.live, kinds: { [odd]: 3 } } })}\n\n` }).catch(gone);
  });
  const oddPage = await strange.newPage();
  await oddPage.goto(`${admin}/page`);
  await until("odd texts are shown", async () => oddPage.evaluate((at) => ["rows", "by-kind", "by-client", "models", "kinds", "most"].every((id) => document.getElementById(id).textContent.includes(at)), odd));
  await oddPage.locator("#rows button").first().click();
  await oddPage.locator("#by-client button").first().click();
  await until("and chosen", async () => oddPage.evaluate((at) => document.getElementById("client").selectedOptions[0].textContent === at, odd));
  await becomes("members of a fleet", async () => (await text(oddPage, "models")).includes("2 members, 7 waiting, store lost"));
  check("and are nothing else", await oddPage.evaluate(() => [document.images.length, document.scripts.length, window.pwned === undefined, document.querySelectorAll(".detail a").length]), [0, 1, true, 0]);
  await strange.close();

  // A spent quota says when it clears.
  await call(gate, "two", "gemini-3.7-flash", "hi");
  await until("it clears in hours", async () => /day.* in [0-9.]+ (h|min)/.test(await text(page, "models")));

  // Dark, and narrow.
  const dark = await watch(browser, admin, "dark");
  await until("it is there in the dark, too", async () => first(await text(dark.page, "totals")) === 102);
  const colour = (at) => at.evaluate(() => getComputedStyle(document.body).backgroundColor);
  check("two colour schemes", (await colour(page)) !== (await colour(dark.page)));
  await dark.page.locator("#rows button").first().click();
  await dark.page.screenshot({ path: join(LOCAL, "dark.png"), fullPage: true });
  await dark.page.setViewportSize({ width: 420, height: 900 });
  await becomes("a narrow window does not scroll sideways", () => dark.page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
  await dark.page.screenshot({ path: join(LOCAL, "narrow.png"), fullPage: true });
  check("nothing from elsewhere", [...asked, ...dark.asked].filter((origin) => origin !== admin && origin !== "data:"), []);
  check("no error in the console", [...said, ...dark.said], []);

  // The gateway stops although pages are open, and they say so.
  await dark.context.close();
  child.kill("SIGTERM");
  const code = await Promise.race([new Promise((done) => child.once("exit", done)), new Promise((done) => setTimeout(done, PATIENCE, "hangs"))]);
  check("it stops", code, 0);
  await until("the page says that it is alone", async () => (await text(page, "state")).includes("not connected"));
  await context.close();
  await browser.close();
}

let crashed;
await main().catch((error) => { crashed = error; });
for (const child of started) child.kill("SIGKILL");
if (crashed) failures.push(String(crashed.stack));
for (const failure of failures) console.log(`FAILED  ${failure}`);
console.log(`${held} of ${held + failures.length} held; screenshots: ${LOCAL}`);
process.exit(failures.length ? 1 : 0);
