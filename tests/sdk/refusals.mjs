// 300 refusals in a row of requests with 200 kB, by node's own client. Argument: the scripted gateway. Prints a JSON line.

const MANY = 300;
const url = process.argv[2] + "/v1beta/models/day:generateContent";
const body = JSON.stringify({ contents: [{ parts: [{ text: "x".repeat(200_000) }] }] });
const headers = { "x-goog-api-key": "AIzaSy-refusals-node-0000000000000000000", "content-type": "application/json" };
const seen = {};
const broken = [];
for (let n = 0; n <= MANY; n++) {
  try {
    const answer = await fetch(url, { method: "POST", headers, body });
    await answer.text();
    if (n > 0) seen[answer.status] = (seen[answer.status] ?? 0) + 1;
  } catch (error) {
    broken.push(error.cause?.code ?? error.name);
  }
}
const note = [...Object.entries(seen).map(([status, many]) => `${many} x ${status}`), `${broken.length} broken`, ...broken.slice(0, 1)];
const ok = seen[429] === MANY && broken.length === 0;
console.log(JSON.stringify({ case: `300 refusals, fetch of node ${process.version}`, ok, note: note.join(", ") }));
