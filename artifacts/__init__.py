"""Sealed artifacts: a library of its own, usable by a partner without the service."""
