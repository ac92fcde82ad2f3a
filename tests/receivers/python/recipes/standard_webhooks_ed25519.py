"""Standard Webhooks with an asymmetric signature (v1a), which the official library does not know:
by the specification, with PyNaCl. The secret here is the public key."""

import base64
import json

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from recipes.compare import is_json, recent


def verifies(key, signed, entry):
    version, _, signature = entry.partition(",")
    if version != "v1a":
        return False
    try:
        key.verify(signed, base64.b64decode(signature))
    except BadSignatureError:
        return False
    return True


def verify(secret, headers, body):
    is_json(headers)
    key = VerifyKey(base64.b64decode(secret.removeprefix("whpk_")))
    message, timestamp = headers["webhook-id"], headers["webhook-timestamp"]
    recent(int(timestamp))
    signed = f"{message}.{timestamp}.".encode() + body
    if not any(verifies(key, signed, entry) for entry in headers["webhook-signature"].split(" ")):
        raise ValueError("the signature does not match")
    webhook = json.loads(body)
    return {"id": message, "type": webhook["type"], "data": webhook["data"]}
