"""Two custody workers at once, on SQLite and PostgreSQL; and every key service in custody's place."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest
from moto import mock_aws
from sqlalchemy import Engine

from activities.custody.keys import load_or_make
from artifacts.custody.aws_kms import AwsKms
from artifacts.custody.base import WrappedKey
from artifacts.custody.local import LocalKeyring
from artifacts.custody.openbao import OpenBaoTransit
from artifacts.errors import KeyProviderError
from orchestrator.domain.errors import Conflict
from tests.custody.world import CHEAP, PLATFORM, World
from tests.support.openbao import openbao_server
from tests.support.postgres import postgres_server


@pytest.fixture
def postgres() -> Iterator[str]:
    """A PostgreSQL server for custody's memory."""
    with postgres_server() as url:
        yield url


def two_at_once(world: World) -> None:
    """Both answer the same requests; the log stays one, and one envelope stands."""
    others = [world.custody, world.new_custody()]
    world.to("inside")
    world.prepare("demo")
    world.approve("demo")
    asked = world.begin("demo")
    with ThreadPoolExecutor(8) as pool:
        watching = [pool.submit(other.watch.catch_up) for other in others * 4]
        answers = [pool.submit(other.make_envelopes, asked) for other in others * 4]
        made = [answer.result() for answer in answers]
        assert all(job.result().size > 0 for job in watching)
    assert all(one == made[0] for one in made)
    assert world.envelopes_kept() == 1
    payload = world.opened(made[0]["demo.2.platform"][world.artifact.artifact_id], PLATFORM)
    assert set(payload.keys) == {"weights.bin", "tokenizer.json"}
    assert len(world.memory.holdings()) == 1
    sizes = {other.watch.catch_up().size for other in others}
    assert len(sizes) == 1
    assert [leaf["action"] for leaf in world.custody_leaves()] == ["unwrap"] * 8


def test_two_workers_share_one_memory_in_sqlite(world: World) -> None:
    two_at_once(world)


@pytest.mark.stack
def test_two_workers_share_one_memory_in_postgresql(engine: Engine, tmp_path: Path, postgres: str) -> None:
    world = World(engine, tmp_path, memory_url=postgres)
    two_at_once(world)
    world.close()


def test_two_workers_started_at_once_have_the_same_keys(tmp_path: Path) -> None:
    provider = LocalKeyring.create(tmp_path / "keyring", b"a passphrase", cost=CHEAP)
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(load_or_make, tmp_path / "keys.json", provider, "log.example") for _ in range(4)]
        made = {job.result().public for job in jobs}
    assert len(made) == 1
    assert (tmp_path / "keys.json").stat().st_mode & 0o777 == 0o600


def test_the_file_of_custodys_keys_opens_nothing_without_the_key_encryption_key(tmp_path: Path) -> None:
    provider = LocalKeyring.create(tmp_path / "keyring", b"a passphrase", cost=CHEAP)
    load_or_make(tmp_path / "keys.json", provider, "log.example")
    other = LocalKeyring.create(tmp_path / "other", b"a passphrase", cost=CHEAP)
    with pytest.raises(KeyProviderError):
        load_or_make(tmp_path / "keys.json", other, "log.example")


@pytest.mark.stack
def test_a_whole_release_on_openbao_and_what_a_sealed_server_does_to_it(
    engine: Engine, tmp_path: Path
) -> None:
    with openbao_server() as admin:
        admin.transit_key("sluice")
        token = tmp_path / "token"
        token.write_text(admin.token)
        provider = OpenBaoTransit(admin.address, "sluice", token)
        world = World(engine, tmp_path, provider=provider)
        world.to("inside")
        world.prepare("demo")
        world.approve("demo")
        asked = world.begin("demo")
        admin.seal()
        with pytest.raises(KeyProviderError) as away:
            world.custody.make_envelopes(asked)
        assert away.value.retryable, "nothing was decided; the same request is asked again"
        assert world.envelopes_kept() == 0
        admin.unseal()
        made = world.custody.make_envelopes(asked)
        world.complete("demo", made)
        world.opened(made["demo.2.platform"][world.artifact.artifact_id], PLATFORM)
        assert world.custody.rotate() == (2, 1)
        assert WrappedKey.parse(world.memory.holdings()[0].wrapped).version == 2
        admin.policy("nothing", 'path "transit/encrypt/sluice" { capabilities = ["update"] }')
        token.write_text(admin.new_token("nothing"))
        world.wait("query")
        world.prepare("query")
        world.approve("query")
        asked = world.begin("query")
        with pytest.raises(Conflict):
            world.custody.make_envelopes(asked)
        assert world.memory.refusals("alpha")
        world.close()
        provider.close()


def test_a_release_on_aws_kms(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The positive path, on a simulator that decrypts with disabled keys too: what is refused is tried on OpenBao."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        key = boto3.client("kms").create_key()["KeyMetadata"]["KeyId"]
        world = World(engine, tmp_path, provider=AwsKms(key, region="us-east-1"))
        world.to("inside")
        made = world.enter("demo")
        world.opened(made["demo.2.platform"][world.artifact.artifact_id], PLATFORM)
        assert WrappedKey.parse(world.memory.holdings()[0].wrapped).provider == "aws-kms"
        world.close()
