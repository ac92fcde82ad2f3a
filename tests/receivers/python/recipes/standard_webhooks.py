"""Standard Webhooks, with the official library."""

from standardwebhooks import Webhook

from recipes.compare import is_json


def verify(secret, headers, body):
    is_json(headers)
    webhook = Webhook(secret).verify(body, headers)
    return {"id": headers["webhook-id"], "type": webhook["type"], "data": webhook["data"]}
