// A receiver of webhooks as its owner would write it: plain `node:http`, one recipe per provider.
//
//   stdin   {"path":"/a","profile":"kryptos","secret":"…","failures":0}   one line per endpoint
//   stdout  {"port":4711}                                                 once, when it listens
//           {"path":"/a"}                                                 when an endpoint is known
//           {"path":"/a","status":200,"id":"…","type":"…","data":…}       for each request
//
// `failures` is how many verified requests of one id are answered with 503 before the first 200.
// A request that does not verify is answered with 401 and reported with its reason.

import { createServer } from "node:http";
import { createInterface } from "node:readline";

const endpoints = new Map();

function report(line) {
  process.stdout.write(JSON.stringify(line) + "\n");
}

async function read(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks);
}

const server = createServer(async (request, response) => {
  const endpoint = endpoints.get(request.url);
  const body = await read(request);
  let seen;
  try {
    if (endpoint === undefined) throw new Error("no such endpoint");
    seen = endpoint.verify(endpoint.secret, request.headers, body);
  } catch (error) {
    report({ path: request.url, status: 401, reason: error.message, body: body.toString() });
    response.writeHead(401).end();
    return;
  }
  const earlier = endpoint.times.get(seen.id) ?? 0;
  endpoint.times.set(seen.id, earlier + 1);
  const status = earlier < endpoint.failures ? 503 : 200;
  report({ path: request.url, status, body: body.toString(), ...seen });
  response.writeHead(status).end();
});

server.listen(0, "127.0.0.1", () => report({ port: server.address().port }));

const lines = createInterface({ input: process.stdin });
lines.on("line", async (line) => {
  const { path, profile, secret, failures } = JSON.parse(line);
  const { verify } = await import(`./recipes/${profile}.mjs`);
  endpoints.set(path, { verify, secret, failures: failures ?? 0, times: new Map() });
  report({ path });
});
// Whoever started this is gone when its end of the pipe is.
lines.on("close", () => process.exit(0));
