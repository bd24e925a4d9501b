"""Backup, restore and reconciliation of what the service keeps: `sluice backup …`; when and why is in `docs/recover.md`."""
