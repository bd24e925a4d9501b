"""What the service says outward: webhooks, mail, and whatever `apprise` reaches. All of it derives from the records."""
