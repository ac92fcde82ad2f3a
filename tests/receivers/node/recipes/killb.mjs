// KillB: lower-case hex HMAC-SHA256 of the body. The body tells which attempt it is.

import { createHmac } from "node:crypto";
import { json, same } from "./compare.mjs";

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

export function verify(secret, headers, body) {
  json(headers);
  same(createHmac("sha256", secret).update(body).digest("hex"), headers["x-signature-sha256"]);
  const webhook = JSON.parse(body);
  const { id, event, action, data, createdAt, updatedAt, attempts } = webhook;
  if (!UUID.test(id)) throw new Error(`the id is ${id}`);
  for (const time of [createdAt, updatedAt]) {
    if (Number.isNaN(Date.parse(time))) throw new Error(`a time is ${time}`);
  }
  if (!Number.isInteger(attempts)) throw new Error(`attempts is ${attempts}`);
  return { id, type: `${event}.${action}`, data, attempts };
}
