"""KillB: lower-case hex HMAC-SHA256 of the body. The body tells which attempt it is."""

import hashlib
import hmac
import json
import uuid
from datetime import datetime

from recipes.compare import is_json, same


def verify(secret, headers, body):
    is_json(headers)
    expected = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    same(expected, headers.get("x-signature-sha256"))
    webhook = json.loads(body)
    for name in ("createdAt", "updatedAt"):
        datetime.fromisoformat(webhook[name].replace("Z", "+00:00"))
    if not isinstance(webhook["attempts"], int):
        raise ValueError(f"attempts is {webhook['attempts']}")
    return {
        "id": str(uuid.UUID(webhook["id"])),
        "type": f"{webhook['event']}.{webhook['action']}",
        "data": webhook["data"],
        "attempts": webhook["attempts"],
    }
