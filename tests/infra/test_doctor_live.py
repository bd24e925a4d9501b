"""`sluice doctor` against real servers, whole and misbehaving: PostgreSQL, S3, OpenBao, Temporal. Each problem says what to do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from sqlalchemy.engine import URL, make_url

from infra import doctor
from infra.doctor import Examination, Finding, examine
from infra.preparing.postgres import grant_custody
from infra.processes import free_port
from infra.provision import provision_dev
from infra.settings import Role, Settings
from infra.settings_parts.custody import KeyProvider
from orchestrator.records import database
from orchestrator.records.migrate import migrate
from tests.artifacts.custody.conftest import CUSTODY_POLICY
from tests.artifacts.stores.servers import S3Server, juicefs_server, moto_server
from tests.records.conftest import postgres_server, run
from tests.support.openbao import Admin, openbao_server
from tests.support.temporal import TemporalServer

__all__ = ["postgres_server"]
pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def bao() -> Iterator[Admin]:
    with openbao_server() as admin:
        admin.transit_key("sluice-kek")
        admin.transit_key("loose", derived=False)
        for key in ("sluice-kek", "loose"):
            admin.policy(key, CUSTODY_POLICY.format(key=key))
        admin.policy("reads", 'path "transit/keys/sluice-kek" { capabilities = ["read"] }')
        yield admin


@pytest.fixture(scope="module")
def moto() -> Iterator[S3Server]:
    with moto_server() as server:
        with closing(server.client()) as client:
            client.create_bucket(Bucket="doctor")
        yield server


@pytest.fixture(scope="module")
def records(postgres_server: str) -> str:
    """A migrated database with three users: one that may not log in so, one that may nothing, one that may read."""
    run(
        postgres_server,
        "CREATE DATABASE doctor",
        "CREATE ROLE stranger LOGIN PASSWORD 'right'",
        "CREATE ROLE reader LOGIN",
    )
    given = make_url(postgres_server)
    server = URL.create("postgresql", given.username, host=given.host, port=given.port, query=given.query)
    url = server.set(database="doctor").render_as_string()
    migrate(url)
    engine = database.connect(url)
    grant_custody(engine, "reader")
    engine.dispose()
    return url


@pytest.fixture
def site(
    tmp_path: Path,
    temporal_server: TemporalServer,
    records: str,
    moto: S3Server,
    bao: Admin,
    monkeypatch: pytest.MonkeyPatch,
) -> Settings:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", moto.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", moto.secret_key)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it keeps the credentials that it found first
    token = tmp_path / "token"
    token.write_text(bao.new_token("sluice-kek"))
    token.chmod(0o400)
    settings = Settings(
        dev=True,
        data_dir=tmp_path / "data",
        temporal_address=temporal_server.address,
        temporal_namespace=temporal_server.namespace,
        database_url=records,
        store_uri="s3://doctor/sealed",
        s3_endpoint_url=moto.endpoint,
        key_provider=KeyProvider.OPENBAO,
        openbao_address=bao.address,
        openbao_token_file=token,
        openbao_key="sluice-kek",
    )
    settings.data_dir.mkdir(mode=0o700)
    provision_dev(settings)
    return settings


def found(seen: Examination, level: str = "problem") -> dict[str, Finding]:
    listed = {f.check: f for f in seen.findings if f.level == level}
    if level == "problem":
        assert all(f.do for f in listed.values()), "a problem without a word on what to do"
    return listed


async def test_a_deployment_on_real_servers_has_no_problem(site: Settings) -> None:
    seen = await examine(site, Role.CUSTODY)
    assert found(seen) == {}
    assert set(found(seen, "ok")) >= {
        "database", "database version", "database clock", "database schema", "temporal", "temporal namespace",
        "temporal search attributes", "store", "key service", "key service clock", "key service round trip",
    }  # fmt: skip
    assert "PostgreSQL" in found(seen, "ok")["database version"].found


# --- PostgreSQL


def of_database(site: Settings, **url: Any) -> dict[str, Finding]:
    seen = Examination()
    changed = make_url(site.database_url).set(**url).render_as_string(hide_password=False)
    doctor._database(seen, site.model_copy(update={"database_url": changed}))
    return found(seen)


@pytest.mark.parametrize(
    ("url", "said", "do"),
    [
        ({"username": "nobody-here"}, "does not exist", "sluice prepare postgres"),
        ({"database": "elsewhere"}, "does not exist", "sluice prepare postgres"),
        ({"username": "stranger"}, "InsufficientPrivilege", "use the owner of the records"),
    ],
)
def test_a_database_that_does_not_let_us_do_our_work(
    site: Settings, url: dict[str, Any], said: str, do: str
) -> None:
    problem = of_database(site, **url)["database"]
    assert said in problem.found
    assert do in problem.do
    assert "right" not in problem.found


def test_a_wrong_password(site: Settings, records: str) -> None:
    """Where the server asks for one."""
    import psycopg

    with psycopg.connect(records) as connection:
        (file,) = connection.execute("SHOW hba_file").fetchone() or ("",)
    path = Path(file)
    before = path.read_text()
    path.write_text(f"local all stranger scram-sha-256\nhost all stranger all scram-sha-256\n{before}")
    run(records, "SELECT pg_reload_conf()")
    try:
        deadline = time.monotonic() + 10
        while True:  # the server takes it up a moment later
            problem = of_database(site, username="stranger", password="wrong")["database"]
            if "password" in problem.found or time.monotonic() > deadline:
                break
    finally:
        path.write_text(before)
        run(records, "SELECT pg_reload_conf()")
    assert "password authentication failed" in problem.found
    assert "SLUICE_DATABASE_PASSWORD_FILE" in problem.do
    assert "wrong" not in problem.found


def test_a_user_that_may_read_alone(site: Settings) -> None:
    problem = of_database(site, username="reader")["database rights"]
    assert (problem.found, "owner" in problem.do) == ("this user may not write", True)


def test_an_old_server_and_another_clock(site: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.doctor._POSTGRES_SINCE", 990_000)
    monkeypatch.setattr("infra.doctor.time", SimpleNamespace(time=lambda: time.time() + 3600))
    problems = of_database(site)
    assert "upgrade" in problems["database version"].do
    assert "NTP" in problems["database clock"].do
    assert "3600.0 s behind" in problems["database clock"].found


def test_a_database_of_another_version(site: Settings, records: str) -> None:
    run(records, "UPDATE alembic_version SET version_num = version_num || 'x'")
    try:
        assert "sluice migrate" in of_database(site)["database schema"].do
    finally:
        run(records, "UPDATE alembic_version SET version_num = rtrim(version_num, 'x')")


# --- S3


def of_store(site: Settings, **changes: Any) -> Examination:
    seen = Examination()
    doctor._store(seen, site.model_copy(update=changes))
    return seen


def test_a_bucket_that_is_not_there_and_a_server_that_is_not_there(site: Settings) -> None:
    missing = found(of_store(site, store_uri="s3://no-such-bucket/x"))["store"]
    assert "bucket" in missing.found.lower() or "no-such-bucket" in missing.found
    gone = found(of_store(site, s3_endpoint_url=f"http://127.0.0.1:{free_port()}"))["store"]
    assert "SLUICE_STORE_URI" in gone.do
    assert "Traceback" not in gone.found


def test_a_store_that_lacks_what_matters_and_wrong_credentials(
    site: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "juicefs"
    folder.mkdir()
    with juicefs_server(folder) as server:
        with closing(server.client()) as client:
            client.create_bucket(Bucket="doctor")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
        seen = of_store(site, s3_endpoint_url=server.endpoint)
        assert found(seen) == {}
        lacking = [f for f in seen.findings if f.check == "store features" and f.level == "warning"]
        assert any(f.found.startswith("conditional_create") and "docs/stores.md" in f.do for f in lacking)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret-canary")
        monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
        refused = found(of_store(site, s3_endpoint_url=server.endpoint))["store"]
    assert "credentials" in refused.do
    assert "wrong-secret-canary" not in refused.found


# --- OpenBao


def of_custody(site: Settings, **changes: Any) -> dict[str, Finding]:
    seen = Examination()
    doctor._custody(seen, site.model_copy(update=changes))
    return found(seen)


def test_a_key_service_that_is_sealed_or_does_not_let_us(site: Settings, bao: Admin, tmp_path: Path) -> None:
    def token(policy: str) -> Path:
        file = tmp_path / f"token-{policy}"
        file.write_text(bao.new_token(policy) if policy != "none" else "s.nothing-of-the-kind")
        file.chmod(0o400)
        return file

    def said(**changes: Any) -> str:
        problem = of_custody(site, **changes)["key service"]
        assert "docs/key-providers.md" in problem.do
        return problem.found

    assert "expired, was revoked, or is none" in said(openbao_token_file=token("none"))
    assert "policy does not allow" in said(openbao_token_file=token("reads"))
    assert "derived=true" in said(openbao_key="loose", openbao_token_file=token("loose"))
    assert "cannot be reached" in said(openbao_address=f"http://127.0.0.1:{free_port()}")
    bao.seal()
    try:
        assert "unseal" in said()
    finally:
        bao.unseal()
    assert of_custody(site) == {}


def test_a_key_service_with_another_clock(site: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.doctor.time", SimpleNamespace(time=lambda: time.time() - 60))
    assert "ahead" in of_custody(site)["key service clock"].found


# --- Temporal


async def of_temporal(site: Settings) -> Examination:
    seen = Examination()
    await doctor._temporal(seen, site)
    return seen


async def test_a_namespace_without_our_search_attributes_and_with_a_short_memory(
    site: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.temporal.SEARCH_ATTRIBUTES", {"SluiceNotThere": "Keyword"})
    seen = await of_temporal(site.model_copy(update={"temporal_retention_days": 90}))
    missing = found(seen)["temporal search attributes"]
    assert "SluiceNotThere" in missing.found
    assert "search-attribute create" in missing.do
    assert "retention" in found(seen, "warning")["temporal namespace"].do


@pytest.mark.parametrize(
    ("version", "level", "do"),
    [
        ("1.32.0", "ok", ""),
        ("1.30.2-rc1", "warning", "upgrade to 1.32"),
        ("1.20.0", "problem", "1.28 or newer"),
        ("", "ok", ""),
    ],
)
def test_versions_of_temporal(version: str, level: str, do: str) -> None:
    seen = Examination()
    doctor._temporal_version(seen, version)
    assert (seen.findings[0].level, do in seen.findings[0].do) == (level, True)
