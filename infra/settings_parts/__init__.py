"""The settings by topic. `infra.settings` makes the one object of them, in the order of docs/settings.md."""
