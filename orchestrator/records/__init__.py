"""SQLModel tables, repositories and migrations: the event log and the read models."""
