"""Fixtures that every folder may use, and one profile for all properties: no deadline on a machine that is shared."""

from hypothesis import HealthCheck, settings

from tests.support.temporal import temporal_client, temporal_server, virtual_time_env

__all__ = ["temporal_client", "temporal_server", "virtual_time_env"]

settings.register_profile("sluice", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("sluice")
