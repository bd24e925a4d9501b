"""Fixtures that every folder may use, and one profile for all properties: no deadline on a machine that is shared."""

import pytest
from hypothesis import HealthCheck, settings

from tests.support.temporal import temporal_client, temporal_server, virtual_time_env

__all__ = ["temporal_client", "temporal_server", "virtual_time_env"]

settings.register_profile("sluice", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("sluice")


#: The longest files begin first, so that at the end no process works alone on one of them.
_LONGEST = (
    "tests/stack/",
    "tests/infra/test_stack.py",
    "tests/infra/test_telemetry.py",
    "tests/workflows/test_a_long_release.py",
    "tests/domain/test_release_properties.py",
    "tests/api/test_contract.py",
    "tests/infra/test_deployment.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files; within a file nothing changes."""

    def place(item: pytest.Item) -> int:
        return next((n for n, start in enumerate(_LONGEST) if item.nodeid.startswith(start)), len(_LONGEST))

    items.sort(key=place)
