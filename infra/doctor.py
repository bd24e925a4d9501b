"""`sluice doctor`: tries every dependency as the process of one role would use it, and says what to do where something is wrong.

    settings     the role may start with them; its secret files can be read, by their owner alone
    disk         space where the data folder is
    database     reachable · PostgreSQL's version · clock beside ours · schema revision · tables as the models have them · may write
    temporal     reachable · version · namespace · search attributes
    store        reachable, and what this server really does (tried with one tiny object, which is removed)
    key service  healthy · one key wrapped and unwrapped · refuses another context · clock beside ours (OpenBao)
    custody      its public file is there, and says what custody's own keys say
    mail         the mail server answers, secures the connection, and takes user and password

Nothing is changed and nothing existing is read but headers. A check that cannot be tried because an earlier one failed is left out.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import ssl
import stat
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError, ProgrammingError

from infra.settings import Role, Settings, SettingsError
from infra.settings_parts.custody import KeyProvider
from infra.settings_parts.place import PREFIX

Level = Literal["ok", "warning", "problem"]

#: The most that another server's clock may differ, seconds: statements of people are refused beyond it.
SKEW_S = 5.0
_FREE_PROBLEM, _FREE_WARNING = 1 << 30, 10 << 30
_POSTGRES_SINCE = 140_000
_STORE_MATTERS = ("conditional_create", "part_checksums", "resume", "range_reads")
_USES_STORE = frozenset({Role.API, Role.TRANSFER, Role.CUSTODY, Role.LEAKS, Role.STACK})
_WRITES_STORE = frozenset({Role.TRANSFER, Role.CUSTODY, Role.STACK})
_USES_TEMPORAL = frozenset({Role.API, Role.RELEASES, Role.TRANSFER, Role.CUSTODY, Role.LEAKS, Role.STACK})


#: The oldest server that versions workers, and the one that this version was tried on.
_TEMPORAL_SINCE, _TEMPORAL_TRIED = (1, 28), (1, 32)
_DATABASE_REMEDIES = {
    "password": "put this user's password into the file that SLUICE_DATABASE_PASSWORD_FILE names",
    "pg_hba.conf": "let this machine and user in by the server's pg_hba.conf",
    "does not exist": "make user and database with `sluice prepare postgres`, or correct SLUICE_DATABASE_URL",
    "InsufficientPrivilege": "use the owner of the records; custody's own user gets its rights by `sluice migrate` with "
    "SLUICE_DATABASE_CUSTODY_USER",
    "too many": "raise the server's max_connections, or lower SLUICE_DATABASE_POOL_SIZE",
    "starting up": "wait until the server is up",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. `do`: what to do about it; empty when nothing."""

    check: str
    level: Level
    found: str
    do: str = ""

    def as_dict(self) -> dict[str, str]:
        """As JSON."""
        return {key: str(value) for key, value in asdict(self).items()}


class Examination:
    """Collects findings; a check that raises is a problem with its own words."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def note(self, check: str, level: Level, found: str, do: str = "") -> None:
        """One finding."""
        self.findings.append(Finding(check, level, found, do))

    @contextmanager
    def trying(self, check: str, do: str) -> Iterator[None]:
        """Whatever the block raises is a problem; `do` says what to do about it."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - a doctor tells every failure
            words = str(getattr(error, "detail", "") or error).strip().splitlines()
            self.note(check, "problem", (words[0] if words else type(error).__name__)[:300], do)

    @property
    def healthy(self) -> bool:
        """No problem was found; warnings don't count."""
        return all(finding.level != "problem" for finding in self.findings)


async def examine(settings: Settings, role: Role) -> Examination:
    """Every check that concerns a process of that role."""
    seen = Examination()
    _settings(seen, settings, role)
    _disk(seen, settings)
    await asyncio.to_thread(_database, seen, settings)
    if role in _USES_TEMPORAL:
        await _temporal(seen, settings)
    if role in _USES_STORE:
        await asyncio.to_thread(_store, seen, settings, role)
    if role in {Role.CUSTODY, Role.STACK}:
        await asyncio.to_thread(_custody, seen, settings)
    elif role in {Role.API, Role.TRANSFER}:
        _custody_public(seen, settings)
    if role is Role.NOTICES:
        await asyncio.to_thread(_mail, seen, settings)
    return seen


def _settings(seen: Examination, settings: Settings, role: Role) -> None:
    try:
        settings.for_role(role)
    except SettingsError as error:
        for line in str(error).splitlines():
            seen.note("settings", "problem", line, "set it as docs/settings.md says")
    else:
        if settings.dev:
            seen.note("settings", "warning", "dev mode: insecure settings are allowed", "leave out --dev")
        else:
            seen.note("settings", "ok", f"{role.value} may start with them")
    for name in sorted(settings.model_fields_set):
        value = getattr(settings, name)
        if name.endswith("_file") and isinstance(value, Path) and not name.endswith("_public_file"):
            _secret_file(seen, name, value)


def _secret_file(seen: Examination, name: str, path: Path) -> None:
    variable = f"{PREFIX}{name.upper()}"
    try:
        status = path.stat()
    except FileNotFoundError:
        if name in {"custody_keys_file", "operator_token_file", "monitor_keys_file", "keyring_file"}:
            return  # made on the first start
        seen.note("secrets", "problem", f"{variable}: {path} is not there", "put the secret there")
        return
    except OSError as error:
        seen.note("secrets", "problem", f"{variable}: {path}: {error.strerror}", "let this user read it")
        return
    if not os.access(path, os.R_OK):
        seen.note("secrets", "problem", f"{variable}: {path} cannot be read", "let this user read it")
    elif status.st_mode & (stat.S_IRWXO | stat.S_IWGRP) and not name.endswith("_ca_file"):
        seen.note(
            "secrets",
            "warning",
            f"{variable}: {path} is open to others ({stat.filemode(status.st_mode)})",
            f"chmod 0400 {path}",
        )


def _disk(seen: Examination, settings: Settings) -> None:
    folder = settings.data_dir
    while not folder.exists():
        folder = folder.parent
    usage = shutil.disk_usage(folder)
    free = f"{usage.free / (1 << 30):.1f} GiB free of {usage.total / (1 << 30):.0f} at {folder}"
    if usage.free < _FREE_PROBLEM:
        seen.note("disk", "problem", free, "make room: below 1 GiB databases and uploads stop")
    elif usage.free < _FREE_WARNING and usage.free < usage.total // 10:
        seen.note("disk", "warning", free, "make room before it is below 1 GiB")
    else:
        seen.note("disk", "ok", free)


# --- the database


def _database(seen: Examination, settings: Settings) -> None:
    from infra.parts import records_engine
    from orchestrator.domain.errors import SluiceError

    with seen.trying("database", "check SLUICE_DATABASE_URL, the password's file, and that the server runs"):
        engine = records_engine(settings)
        try:
            # before it is connected to: that would make the file
            if engine.dialect.name == "sqlite" and not Path(str(engine.url.database)).exists():
                seen.note(
                    "database", "problem", f"{engine.url.database} is not there", "run `sluice migrate`"
                )
                return
            with engine.connect():
                pass
            _reached(seen, engine, settings)
        except (OperationalError, ProgrammingError, SluiceError) as error:
            words = (
                error.detail if isinstance(error, SluiceError) else str(error.orig).strip().splitlines()[0]
            )
            words = words[:300]
            remedy = next((do for said, do in _DATABASE_REMEDIES.items() if said in words), "")
            away = "check SLUICE_DATABASE_URL, and that the server runs"
            found = words if remedy else f"the database does not answer: {words}"
            seen.note("database", "problem", found, remedy or away)
        finally:
            engine.dispose()


def _reached(seen: Examination, engine: Engine, settings: Settings) -> None:
    from orchestrator.domain.errors import SluiceError
    from orchestrator.records.database import reading
    from orchestrator.records.migrate import drift, newest, schema

    with reading(engine) as session:
        if engine.dialect.name == "postgresql":
            version = int(session.execute(text("SHOW server_version_num")).scalar_one())
            old = version < _POSTGRES_SINCE
            seen.note(
                "database version",
                "problem" if old else "ok",
                f"PostgreSQL {version // 10_000}",
                "upgrade to PostgreSQL 14 or newer" if old else "",
            )
            before = time.time()
            theirs: datetime = session.execute(text("SELECT clock_timestamp()")).scalar_one()
            _skew(seen, "database clock", theirs.timestamp() - (before + time.time()) / 2)
        else:
            session.execute(text("SELECT 1"))
    seen.note("database", "ok", f"{engine.dialect.name} answers")
    have, want = schema(engine), newest()
    if have != want:
        do = "run `sluice migrate`, with the version of the service that is to run"
        seen.note("database schema", "problem", f"revision {have or 'none'}, this version wants {want}", do)
        return
    seen.note("database schema", "ok", f"revision {have}")
    try:
        differences = drift(engine)
    except SluiceError as error:
        seen.note("database tables", "problem", error.detail, "let this user read the schema")
    else:
        if differences:
            found = f"{len(differences)} differences from the models, first: {differences[0]!r}"[:300]
            seen.note(
                "database tables", "problem", found, "somebody changed tables by hand: change them back"
            )
    if engine.dialect.name == "postgresql" and not settings.database_url.partition("@")[0].endswith(
        "custody"
    ):
        with reading(engine) as session:
            may = session.execute(
                text(
                    "SELECT has_table_privilege('release', 'INSERT') AND has_table_privilege('audit_head', 'UPDATE')"
                )
            ).scalar_one()
        if not may:
            seen.note("database rights", "problem", "this user may not write", "use the owner of the records")


def _skew(seen: Examination, check: str, seconds: float) -> None:
    words = f"{abs(seconds):.1f} s {'ahead of' if seconds > 0 else 'behind'} this machine"
    if abs(seconds) > SKEW_S:
        seen.note(
            check, "problem", words, "let both machines follow NTP; windows and signatures go by clocks"
        )
    else:
        seen.note(check, "ok", words)


# --- Temporal


async def _temporal(seen: Examination, settings: Settings) -> None:
    from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
    from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, GetSystemInfoRequest
    from temporalio.service import RPCError

    from infra.temporal import SEARCH_ATTRIBUTES, connect

    with seen.trying("temporal", "check SLUICE_TEMPORAL_ADDRESS, its TLS, and the namespace"):
        client = await connect(settings, patience=timedelta(seconds=3))
        info = await client.workflow_service.get_system_info(
            GetSystemInfoRequest(), timeout=timedelta(seconds=5)
        )
        _temporal_version(seen, info.server_version)
        described = await client.workflow_service.describe_namespace(
            DescribeNamespaceRequest(namespace=client.namespace), timeout=timedelta(seconds=5)
        )
        days = described.config.workflow_execution_retention_ttl.ToTimedelta().days
        short = days < settings.temporal_retention_days
        seen.note(
            "temporal namespace",
            "warning" if short else "ok",
            f"{client.namespace} keeps histories for {days} days",
            f"set its retention to {settings.temporal_retention_days} days" if short else "",
        )
        try:
            known = await client.operator_service.list_search_attributes(
                ListSearchAttributesRequest(namespace=client.namespace), timeout=timedelta(seconds=5)
            )
        except RPCError as error:  # a hosted server may not show them
            seen.note("temporal search attributes", "warning", f"not shown ({error.status.name})")
            return
        missing = set(SEARCH_ATTRIBUTES) - set(known.custom_attributes)
        seen.note(
            "temporal search attributes",
            "problem" if missing else "ok",
            f"missing: {', '.join(sorted(missing))}" if missing else "all there",
            "add them as Keyword to the namespace (`temporal operator search-attribute create`)"
            if missing
            else "",
        )


def _temporal_version(seen: Examination, version: str) -> None:
    numbers = tuple(int(part) for part in version.split("-", maxsplit=1)[0].split(".")[:2] if part.isdigit())
    words = f"server {version or 'of unknown version'} answers"
    if not numbers or numbers >= _TEMPORAL_TRIED:
        seen.note("temporal", "ok", words)
    elif numbers >= _TEMPORAL_SINCE:
        tried = ".".join(map(str, _TEMPORAL_TRIED))
        do = f"upgrade to {tried}: on an older one, releases may stay on an old build (`sluice builds list`)"
        seen.note("temporal", "warning", words, do)
    else:
        do = f"upgrade to {'.'.join(map(str, _TEMPORAL_SINCE))} or newer: this one cannot version workers"
        seen.note("temporal", "problem", words, do)


# --- the object store


def _store(seen: Examination, settings: Settings, role: Role = Role.STACK) -> None:
    from infra.parts import StoreOpener

    do = "check SLUICE_STORE_URI, the endpoint, the credentials and their rights on the bucket"
    folder = settings.effective_store_uri.removeprefix("dir:")
    if folder != settings.effective_store_uri and not Path(folder).exists():
        told = "nothing to do if nothing was stored yet; else mount it, or correct SLUICE_STORE_URI"
        seen.note("store", "warning", f"{folder} is not there; it is made by the first that stores", told)
        return
    with seen.trying("store", do), StoreOpener(settings)(settings.effective_store_uri) as store:
        next(iter(store.list()), None)
        features = store.features()
        seen.note("store", "ok", f"{store.uri} answers")
        if any("may not write" in why for why in features.lacking.values()):
            level: Level = "problem" if role in _WRITES_STORE else "ok"
            told = (
                "let it write there, or correct the credentials (docs/stores.md)"
                if level == "problem"
                else ""
            )
            seen.note("store rights", level, "this process may read there and not write", told)
            return
        lacking = [name for name in _STORE_MATTERS if not getattr(features, name)]
        for name in lacking:
            seen.note(
                "store features",
                "warning",
                f"{name}: {features.lacking[name]}",
                "the service works round it; a store that has it is safer (docs/stores.md)",
            )
        if not lacking:
            seen.note("store features", "ok", "all that matter: " + ", ".join(_STORE_MATTERS))


# --- custody


def _custody(seen: Examination, settings: Settings) -> None:
    from artifacts.custody.base import wrapping_context
    from artifacts.custody.errors import WrappedKeyInvalid
    from artifacts.custody.local import InsecureUnprotectedKeyring
    from infra.provision import close_provider, key_provider

    do = "see docs/key-providers.md: the server, the token, the policy and the key"
    with seen.trying("key service", do), warnings.catch_warnings(), ExitStack() as ending:
        warnings.simplefilter("ignore", InsecureUnprotectedKeyring)  # said as a finding below
        provider = key_provider(settings)
        ending.callback(close_provider, provider)
        described, health = provider.describe(), provider.health()
        if not health.ok:
            seen.note("key service", "problem", health.detail, do)
            return
        seen.note("key service", "ok", described.detail)
        if settings.key_provider is KeyProvider.OPENBAO:
            _openbao_clock(seen, settings)
        key, context = secrets.token_bytes(32), wrapping_context("doctor", "doctor", "sha256:" + "0" * 64)
        wrapped = provider.wrap(key, context)
        if provider.unwrap(wrapped, context) != key:
            seen.note("key service round trip", "problem", "another key came back", "use another key service")
            return
        try:
            provider.unwrap(wrapped, wrapping_context("doctor", "other", "sha256:" + "0" * 64))
        except WrappedKeyInvalid:
            seen.note("key service round trip", "ok", "a key came back, and not in another context")
        else:
            seen.note(
                "key service round trip",
                "problem",
                "a key came back in another context",
                "make the key derived",
            )
        if not described.protected:
            seen.note("key service", "warning", "the key is not protected", "use OpenBao, Vault or AWS KMS")
        _same_public(seen, settings, provider)


def _openbao_clock(seen: Examination, settings: Settings) -> None:
    """Its tokens and leases end by its clock."""
    import httpx

    ca = settings.openbao_ca_file
    trusted: ssl.SSLContext | bool = True if ca is None else ssl.create_default_context(cafile=str(ca))
    before = time.time()
    answer = httpx.get(
        f"{settings.openbao_address}/v1/sys/health", verify=trusted, timeout=5, trust_env=False
    )
    theirs = answer.json().get("server_time_utc")
    if isinstance(theirs, int):
        _skew(seen, "key service clock", theirs + 0.5 - (before + time.time()) / 2)


def _same_public(seen: Examination, settings: Settings, provider: Any) -> None:
    from activities.custody.keys import load_or_make
    from infra.provision import read_custody_public

    if not settings.effective_custody_keys_file.exists():
        seen.note("custody keys", "warning", "not made yet", "custody makes them on its first start")
        return
    own = load_or_make(settings.effective_custody_keys_file, provider, settings.custody_log_name).public
    shown = read_custody_public(settings.effective_custody_public_file)
    if own == shown:
        seen.note("custody public file", "ok", "says what custody's own keys say")
    else:
        seen.note(
            "custody public file",
            "problem",
            f"{settings.effective_custody_public_file} holds other keys than custody's own",
            "find out who changed it, remove it and start custody, which writes it anew; tell everybody who pinned it",
        )


def _custody_public(seen: Examination, settings: Settings) -> None:
    from infra.provision import read_custody_public

    with seen.trying("custody public file", "start custody once, and hand its public file to this process"):
        public = read_custody_public(settings.effective_custody_public_file)
        name = public.log_verifier.name if public.verify_key else ""  # both must be readable
        seen.note("custody public file", "ok", f"{settings.effective_custody_public_file}, of the log {name}")


def _mail(seen: Examination, settings: Settings) -> None:
    from infra.notices import mailer

    do = "see docs/notices.md: address, user and password of the mail server"
    with seen.trying("mail", do):
        server = mailer(settings)
        if server is None:
            seen.note("mail", "ok", "none is set: notices go by apprise alone")
            return
        error = server.check().error
        seen.note("mail", *(("ok", "it takes mail") if error is None else ("problem", error, do)))


def now() -> str:
    """The time of an examination, for its report."""
    return datetime.now(UTC).isoformat(timespec="seconds")
