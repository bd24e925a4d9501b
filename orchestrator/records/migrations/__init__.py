"""Alembic migrations of the records, packaged so that an installed service brings its own schema up to date."""
