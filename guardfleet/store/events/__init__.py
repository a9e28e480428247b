"""Webhook endpoints and deliveries: rows and their moves. Sending belongs in `worker/webhooks`."""
