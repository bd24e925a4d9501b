"""The HTTP API: thin routers over commands and read models. `create_app(Deps(...))` makes it; OpenAPI is the contract."""

from orchestrator.api.app import create_app
from orchestrator.api.commands import CommandGateway, TemporalGateway
from orchestrator.api.deps import ApiSettings, Deps, Identity, ManifestFacts

__all__ = [
    "ApiSettings",
    "CommandGateway",
    "Deps",
    "Identity",
    "ManifestFacts",
    "TemporalGateway",
    "create_app",
]
