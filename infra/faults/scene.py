"""What a campaign disturbs: a stack, the links between its processes, their clocks, their disks, and a worker of another version.

    embedded(folder)    the one-machine stack: Temporal, SQLite, a folder as the store
    deployed(folder)    the topology of a deployment: PostgreSQL, OpenBao, S3 and Temporal, none of ours in dev mode

In both, our processes reach every server through a link of the scene (`infra.faults.link`).
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from temporalio.common import WorkerDeploymentVersion

import infra
from infra.components import ONE_MACHINE_BUILD, answers, components, prepare, resolve, urls
from infra.demo_report import WATCHING
from infra.faults.clocks import Clocks, clear_shared, library
from infra.faults.disk import Disk, can_mount
from infra.faults.link import Link
from infra.settings import Role, Settings
from infra.settings_parts.place import PREFIX
from infra.supervised import Component, Site
from infra.supervisor import Stack
from infra.temporal import TemporalError, connect, make_current
from infra.topology import topology

#: The release worker of the other version, beside the one of this.
OTHER = "worker-releases-other"
_OTHER_BUILD = "the-other"
_START_S = 400.0
#: What differs in the workflows of the other version.
_CHANGE = ("COPYING = timedelta(days=4)", "COPYING = timedelta(days=5)")
_PACKAGES = ("orchestrator", "workflows", "activities", "artifacts", "infra")


@dataclass
class Versions:
    """Two versions of the release worker at once, one of them current: new runs go there."""

    settings: Settings
    builds: tuple[str, str]
    current: str

    async def swap(self) -> bool:
        """Make the other one current, as an operator who upgrades, or goes back; whether it worked."""
        other = next(build for build in self.builds if build != self.current)
        try:
            client = await connect(self.settings)
            await make_current(client, WorkerDeploymentVersion(self.settings.deployment, other))
        except TemporalError:
            return False
        self.current = other
        return True


@dataclass
class Scene:
    """A stack that runs and is ready, and what can be done to it.

    Attributes:
        stack: the stack.
        processes: components that are killed and paused.
        servers: components that are also restarted in order.
        links: server → the link to it.
        disks: name → a disk that can be full.
        clocks: None where clocks cannot be set.
        versions: the two versions of the release worker.
        environment: what pipelines and the public need in theirs.
        left_out: what cannot be done on this machine, and why.
    """

    stack: Stack
    processes: tuple[str, ...]
    servers: tuple[str, ...] = ()
    links: Mapping[str, Link] = field(default_factory=dict)
    disks: Mapping[str, Disk] = field(default_factory=dict)
    clocks: Clocks | None = None
    versions: Versions | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """How much of a scene: a short campaign goes without what costs time at the start."""

    disks: bool = True
    clocks: bool = True
    versions: bool = True


@asynccontextmanager
async def embedded(folder: Path, wanted: Wanted = Wanted(), **more: Any) -> AsyncIterator[Scene]:
    """The stack of one machine on `folder`, running; `more`: settings beside those of a campaign."""
    data = folder / "data"
    async with AsyncExitStack() as inside:
        parts = await _parts(inside, folder, wanted, {"temporal": False}, {"data": data})
        settings = Settings(
            dev=True,
            data_dir=data,
            api_port=0,
            temporal_address="127.0.0.1:0",
            temporal_ui=False,
            **WATCHING,
            **more,
        )
        prepare(settings)
        all_of_them = parts.changed(components(settings, ui=False))
        stack = Stack(
            settings,
            all_of_them,
            resolve=lambda given, ports: resolve(given, parts.through(ports)),
            urls=urls,
            patience=500,
        )
        await inside.enter_async_context(stack)
        yield parts.scene(stack, ONE_MACHINE_BUILD)


@asynccontextmanager
async def deployed(folder: Path, wanted: Wanted = Wanted()) -> AsyncIterator[Scene]:
    """The topology of a deployment on `folder`, running; PostgreSQL's own user has to be able to reach the folder."""
    place = folder / "topology"
    place.mkdir(mode=0o711)
    disks = {name: place / name for name in ("data", "postgres", "openbao", "s3")}
    async with AsyncExitStack() as inside:
        spoken = {"postgres": False, "openbao": False, "s3": True, "temporal": False}
        parts = await _parts(inside, folder, wanted, spoken, disks)
        stack = topology(place, change=parts.changed, through=parts.through, **WATCHING)
        await inside.enter_async_context(stack)
        scene = parts.scene(stack, ONE_MACHINE_BUILD)
        yield replace(
            scene,
            environment={
                "AWS_SHARED_CREDENTIALS_FILE": str(place / "secrets/s3.credentials"),
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_EC2_METADATA_DISABLED": "true",
            },
        )


@dataclass
class _Parts:
    """What is put around and between the components of a stack."""

    folder: Path
    links: dict[str, Link]
    disks: dict[str, Disk]
    clocks: Clocks | None
    other: bool
    left_out: list[str]
    names: list[str] = field(default_factory=list)

    def through(self, ports: Mapping[str, int]) -> Mapping[str, int]:
        """The ports by which our processes reach servers: those of the links."""
        for name, link in self.links.items():
            link.target = ports[name]
        return {**ports, **{name: link.port for name, link in self.links.items()}}

    def changed(self, given: list[Component]) -> list[Component]:
        """The components, ours with clocks that can be set, and with the other version's worker beside them."""
        made = list(given)
        if self.other:
            worker = next(component for component in made if component.name == Role.RELEASES.value)
            made.append(_of_the_other_version(worker, self.folder / "other"))
        if self.clocks is not None:
            made = [self.clocks.wind(c) if _ours(c) else c for c in made]
        # a start that takes long is not ended half-way: under faults, and on a crowded machine, it would never come
        made = [replace(c, start_seconds=_START_S) for c in made]
        self.names = [component.name for component in made if not component.once]
        return made

    def scene(self, stack: Stack, build: str) -> Scene:
        versions = Versions(stack.settings, (build, _OTHER_BUILD), build) if self.other else None
        return Scene(
            stack,
            processes=tuple(self.names),
            servers=tuple(self.links),
            links=self.links,
            disks=self.disks,
            clocks=self.clocks,
            versions=versions,
            left_out=tuple(self.left_out),
        )


async def _parts(
    inside: AsyncExitStack,
    folder: Path,
    wanted: Wanted,
    spoken: Mapping[str, bool],
    places: Mapping[str, Path],
) -> _Parts:
    links = {name: await inside.enter_async_context(Link(name, http=http)) for name, http in spoken.items()}
    left_out = []
    disks: dict[str, Disk] = {}
    if wanted.disks and can_mount():
        for name, place in places.items():
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            disks[name] = inside.enter_context(Disk(place))
    elif wanted.disks:
        left_out.append("full disks: this process may not mount a file system of its own (it takes root)")
    preload = library() if wanted.clocks else None
    if wanted.clocks and preload is None:
        left_out.append("clock steps: the package libfaketime is not installed for this machine")
    clocks = None if preload is None else Clocks(folder / "clocks", preload)
    if clocks is not None:
        inside.callback(clear_shared)
    return _Parts(folder, links, disks, clocks, wanted.versions, left_out)


def _ours(component: Component) -> bool:
    """A process of ours that goes on running."""
    roles = {role.value for role in Role} | {OTHER}
    return component.name in roles and not component.once


def other_version(source: Path, folder: Path) -> Path:
    """A copy of the source with a changed workflow: one limit of time differs. The file that was changed.

    Raises:
        RuntimeError: there is not exactly one such line to change.
    """
    for package in _PACKAGES:
        shutil.copytree(source / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    before, after = _CHANGE
    found = [file for file in (folder / "workflows").rglob("*.py") if before in file.read_text("utf-8")]
    if len(found) != 1:
        raise RuntimeError(f"the workflows have {len(found)} files with the line {before!r} to change")
    found[0].write_text(found[0].read_text("utf-8").replace(before, after), encoding="utf-8")
    return found[0]


def _of_the_other_version(worker: Component, folder: Path) -> Component:
    """The release worker, run from a copy of the source whose workflow was changed, under a build id of its own."""
    other_version(Path(infra.__file__).resolve().parent.parent, folder)
    ports = {f"{OTHER}-health": 0}

    def environment(site: Site) -> dict[str, str]:
        own = dict(worker.environment(site))
        return own | {
            f"{PREFIX}BUILD_ID": _OTHER_BUILD,
            f"{PREFIX}HEALTH_PORT": str(site.ports[f"{OTHER}-health"]),
            "PYTHONPATH": str(folder),
        }

    return replace(
        worker,
        name=OTHER,
        # -P: the folder that this is started in is not looked at before the copy
        command=lambda _site: [sys.executable, "-P", "-m", "infra.run", Role.RELEASES.value],
        environment=environment,
        ports=ports,
        ready=answers(lambda site: site.ports[f"{OTHER}-health"]),
        after=(*worker.after, worker.name),
    )
