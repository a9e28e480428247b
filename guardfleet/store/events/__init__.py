"""Webhook endpoints and deliveries: their rows and transitions. Sending belongs in `worker/webhooks`."""
