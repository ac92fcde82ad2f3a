"""What the recipes have in common."""

import hmac
import time

TOLERANCE_SECONDS = 300


def same(expected, given):
    if not hmac.compare_digest(expected, given or ""):
        raise ValueError("the signature does not match")


def recent(seconds):
    if abs(time.time() - seconds) > TOLERANCE_SECONDS:
        raise ValueError("the timestamp is not of now")


def is_json(headers):
    if headers.get("content-type") != "application/json":
        raise ValueError(f"the content type is {headers.get('content-type')}")
