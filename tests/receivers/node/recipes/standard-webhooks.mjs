// Standard Webhooks, with the official library.

import { createRequire } from "node:module";
import { json } from "./compare.mjs";

const require = createRequire(`${process.env.RECEIVER_PACKAGES}/`);
const { Webhook } = require("standardwebhooks");

export function verify(secret, headers, body) {
  json(headers);
  const webhook = new Webhook(secret).verify(body, headers);
  return { id: headers["webhook-id"], type: webhook.type, data: webhook.data };
}
