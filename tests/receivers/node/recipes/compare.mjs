// What the recipes have in common.

import { timingSafeEqual } from "node:crypto";

const TOLERANCE_SECONDS = 300;

export function same(expected, given) {
  const [one, other] = [Buffer.from(expected), Buffer.from(given ?? "")];
  if (one.length !== other.length || !timingSafeEqual(one, other)) {
    throw new Error("the signature does not match");
  }
}

export function recent(seconds) {
  if (!(Math.abs(Date.now() / 1000 - seconds) <= TOLERANCE_SECONDS)) {
    throw new Error("the timestamp is not of now");
  }
}

export function json(headers) {
  if (headers["content-type"] !== "application/json") {
    throw new Error(`the content type is ${headers["content-type"]}`);
  }
}
