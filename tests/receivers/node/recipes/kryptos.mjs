// Kryptos: lower-case hex HMAC-SHA256 of the body, with the secret's characters as key.

import { createHmac } from "node:crypto";
import { json, recent, same } from "./compare.mjs";

export function verify(secret, headers, body) {
  json(headers);
  same(createHmac("sha256", secret).update(body).digest("hex"), headers["x-webhook-signature"]);
  if (!/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d/.test(headers["x-webhook-timestamp"])) {
    throw new Error("the timestamp is not ISO 8601");
  }
  recent(Date.parse(headers["x-webhook-timestamp"]) / 1000);
  const { data } = JSON.parse(body);
  return { id: headers["x-webhook-id"], type: headers["x-webhook-event"], data };
}
