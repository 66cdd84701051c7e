// Talks to an echo server with Node's `ws`, and prints what it met: one JSON value a line.
// node node_client.cjs URL CA_FILE

const { once } = require("node:events");
const fs = require("node:fs");
const WebSocket = require("ws");

const [url, caFile] = process.argv.slice(2);
const say = (name, value) => console.log(JSON.stringify({ [name]: value }));

async function main() {
  const ws = new WebSocket(url, { ca: fs.readFileSync(caFile) });
  await once(ws, "open");
  say("extensions", ws.extensions);

  for (const text of ["hello", "", "€ and 𝄞", "x".repeat(65536)]) {
    ws.send(text);
    const [data, isBinary] = await once(ws, "message");
    say("text", !isBinary && data.toString() === text);
  }
  for (const size of [0, 125, 126, 65535, 65536, 1 << 20]) {
    const bytes = Buffer.alloc(size, "abc");
    ws.send(bytes);
    const [data, isBinary] = await once(ws, "message");
    say("binary", isBinary && bytes.equals(data));
  }
  ws.send("hel", { fin: false });
  ws.ping("inside a message");
  const [pong] = await once(ws, "pong");
  say("pong", pong.toString());
  ws.send("lo wor", { fin: false });
  ws.send("ld");
  say("fragments", (await once(ws, "message"))[0].toString());

  const wanted = Array.from({ length: 500 }, (_, i) => `message ${i}`);
  const got = [];
  const all = new Promise((resolve) =>
    ws.on("message", (data) => {
      got.push(data.toString());
      if (got.length === wanted.length) resolve();
    }),
  );
  wanted.forEach((text) => ws.send(text));
  await all;
  say("order", got.join() === wanted.join());

  ws.close(3001, "done");
  const [code, reason] = await once(ws, "close");
  say("close", [code, reason.toString()]);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
