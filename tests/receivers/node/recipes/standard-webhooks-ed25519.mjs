// Standard Webhooks with an asymmetric signature (v1a), which the official library does not know:
// by the specification, with Node's own cryptography. The secret here is the public key.

import { createPublicKey, verify as verifySignature } from "node:crypto";
import { json, recent } from "./compare.mjs";

// What DER has before the 32 bytes of an Ed25519 public key (RFC 8410).
const PREFIX = Buffer.from("302a300506032b6570032100", "hex");

export function verify(secret, headers, body) {
  json(headers);
  const raw = Buffer.from(secret.replace(/^whpk_/, ""), "base64");
  const key = createPublicKey({ key: Buffer.concat([PREFIX, raw]), format: "der", type: "spki" });
  const [id, timestamp] = [headers["webhook-id"], headers["webhook-timestamp"]];
  recent(Number(timestamp));
  const signed = Buffer.concat([Buffer.from(`${id}.${timestamp}.`), body]);
  const verified = headers["webhook-signature"].split(" ").some((entry) => {
    const [version, signature] = entry.split(",");
    return version === "v1a" && verifySignature(null, signed, key, Buffer.from(signature, "base64"));
  });
  if (!verified) throw new Error("the signature does not match");
  const webhook = JSON.parse(body);
  return { id, type: webhook.type, data: webhook.data };
}
