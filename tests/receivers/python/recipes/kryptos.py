"""Kryptos: lower-case hex HMAC-SHA256 of the body, with the secret's characters as key."""

import hashlib
import hmac
import json
from datetime import datetime

from recipes.compare import is_json, recent, same


def verify(secret, headers, body):
    is_json(headers)
    expected = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    same(expected, headers.get("x-webhook-signature"))
    sent = headers["x-webhook-timestamp"].replace("Z", "+00:00")
    recent(datetime.fromisoformat(sent).timestamp())
    webhook = json.loads(body)
    return {
        "id": headers["x-webhook-id"],
        "type": headers["x-webhook-event"],
        "data": webhook["data"],
    }
