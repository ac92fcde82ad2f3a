"""How each provider's webhooks are verified."""
