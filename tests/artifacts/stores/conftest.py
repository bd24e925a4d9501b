"""The stores under test, each over a real server: the same contract for all of them."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from artifacts.stores import Store, open_store
from tests.artifacts.stores.servers import S3Server, juicefs_server, moto_server, strict_server
from tests.simulators.hub import HubSimulator


@dataclass
class Place:
    """Somewhere a store can be opened again and again: `open()` is a new process as far as the store can tell."""

    kind: str
    uri: str
    options: dict[str, Any] = field(default_factory=dict)

    def open(self, **more: Any) -> Store:
        return open_store(self.uri, **(self.options | more))


@pytest.fixture(scope="session")
def moto() -> Iterator[S3Server]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with moto_server() as server:
        yield server


@pytest.fixture(scope="session")
def strict() -> Iterator[Any]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with strict_server() as server:
        yield server


@pytest.fixture(scope="session")
def juicefs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with juicefs_server(tmp_path_factory.mktemp("juicefs")) as server:
        yield server


@pytest.fixture(scope="session")
def hub_server() -> Iterator[HubSimulator]:
    with HubSimulator() as simulator:
        yield simulator


@pytest.fixture
def hub(hub_server: HubSimulator) -> HubSimulator:
    """The simulator without faults, limits or log of the test before."""
    hub_server.calm()
    return hub_server


@pytest.fixture
def hub_place(hub: HubSimulator, tmp_path: Path) -> Place:
    """A fresh private repository of the organisation `acme`, with a member's token."""
    token = hub.add_user("lab", orgs=["acme"]).token
    name = "acme/model-" + secrets.token_hex(4)
    hub.repo(name, private=True)
    options = {"endpoint": hub.endpoint, "token": token, "spool": tmp_path / "spool", "transfer": "lfs"}
    return Place("hub", f"hf:{name}", options)


@pytest.fixture(scope="session")
def new_bucket() -> Callable[[S3Server], str]:
    def make(server: S3Server) -> str:
        name = "bucket-" + secrets.token_hex(6)
        client = server.client()
        client.create_bucket(Bucket=name)
        client.close()
        return name

    return make
