"""KyberAccess: `sha256=` and the HMAC-SHA256 of timestamp, dot and body."""

import hashlib
import hmac
import json

from recipes.compare import is_json, recent, same


def verify(secret, headers, body):
    is_json(headers)
    timestamp = headers["x-kyberaccess-timestamp"]
    recent(int(timestamp))
    signed = timestamp.encode() + b"." + body
    expected = "sha256=" + hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    same(expected, headers.get("x-kyberaccess-signature"))
    webhook = json.loads(body)
    if webhook["event"] != headers["x-kyberaccess-event"]:
        raise ValueError(f"the event is {webhook['event']}")
    if not isinstance(webhook["account_id"], str):
        raise ValueError("there is no account_id")
    return {
        "id": headers["x-kyberaccess-delivery"],
        "type": webhook["event"],
        "data": webhook["data"],
    }
