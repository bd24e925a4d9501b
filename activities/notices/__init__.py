"""What the service says outward: webhooks. All of it derives from the records."""
