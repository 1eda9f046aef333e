"""A private CA and a serving certificate for the webhook, kept in a Secret."""
