"""Fixtures that every folder may use."""

from tests.support.temporal import temporal_client, temporal_server, virtual_time_env

__all__ = ["temporal_client", "temporal_server", "virtual_time_env"]
