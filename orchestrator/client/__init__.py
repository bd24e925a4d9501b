"""The typed client of Sluice's API, part of the plain install.

    from orchestrator.client import Sluice, models, operations

    with Sluice("https://sluice.example", token) as sluice:
        for release in sluice.items(operations.list_releases(status="active")):
            print(release.id, release.stage)
        sluice.do(operations.hold("gt-mini-1.0", models.ReasonBody(reason="evaluation looks wrong")))
        sluice.wait_for("gt-mini-1.0", "step_entered", within=3600)

`operations` has one function for every operation of the API: it makes a `Call`, a client sends it. `models` are what goes over the wire.
Both are made from OpenAPI (`python -m infra.client_code`); the rest is by hand. Errors: `orchestrator.client.errors`.
"""

from orchestrator.client import errors, models, operations
from orchestrator.client.asynchronous import AsyncSluice
from orchestrator.client.calls import Call
from orchestrator.client.errors import ClientError, Refused
from orchestrator.client.sync import Sluice, etag

__all__ = [
    "AsyncSluice",
    "Call",
    "ClientError",
    "Refused",
    "Sluice",
    "errors",
    "etag",
    "models",
    "operations",
]
