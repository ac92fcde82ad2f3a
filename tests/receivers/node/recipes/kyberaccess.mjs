// KyberAccess, as its receivers commonly do it: the body is parsed by the framework, and what is
// verified is its serialisation.

import { createHmac } from "node:crypto";
import { json, recent, same } from "./compare.mjs";

export function verify(secret, headers, body) {
  json(headers);
  const timestamp = headers["x-kyberaccess-timestamp"];
  recent(Number(timestamp));
  const webhook = JSON.parse(body);
  const signed = `${timestamp}.${JSON.stringify(webhook)}`;
  const expected = "sha256=" + createHmac("sha256", secret).update(signed).digest("hex");
  same(expected, headers["x-kyberaccess-signature"]);
  const type = headers["x-kyberaccess-event"];
  if (webhook.event !== type) throw new Error(`the event is ${webhook.event}`);
  if (typeof webhook.account_id !== "string") throw new Error("there is no account_id");
  return { id: headers["x-kyberaccess-delivery"], type, data: webhook.data };
}
