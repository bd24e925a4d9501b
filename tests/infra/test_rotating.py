"""`sluice rotate-kek` on a real OpenBao server and on AWS KMS, killed in the middle and gone on with."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from activities.custody.keys import load_or_make
from activities.custody.memory import CustodyMemory, Holding
from artifacts.custody.base import KeyProvider, WrappedKey, wrapping_context
from artifacts.custody.errors import KeyVersionGone
from artifacts.custody.openbao import OpenBaoTransit
from infra.provision import key_provider
from infra.rotating import rotate_kek
from infra.settings import Settings
from orchestrator.records import audit
from orchestrator.records.database import connect, reading
from orchestrator.records.migrate import migrate
from tests.support.openbao import openbao_server

PLAN = "sha256:" + "1" * 64
ROOTS = {f"art-{name}": name.encode() * 32 for name in "abc"}
ROTATING = """
path "transit/encrypt/sluice"     { capabilities = ["update"] }
path "transit/decrypt/sluice"     { capabilities = ["update"] }
path "transit/rewrap/sluice"      { capabilities = ["update"] }
path "transit/keys/sluice"        { capabilities = ["read"] }
path "transit/keys/sluice/rotate" { capabilities = ["update"] }
"""


class Held:
    """Custody's memory with three roots in it, and its own keys, under some key service."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        migrate(settings.effective_database_url)
        (settings.data_dir / "custody").mkdir(parents=True)
        self.provider = key_provider(settings)
        self.keys = load_or_make(
            settings.effective_custody_keys_file, self.provider, settings.custody_log_name
        )
        memory = CustodyMemory(settings.effective_custody_database_url)
        for name, root in ROOTS.items():
            wrapped = self.provider.wrap(root, wrapping_context("alpha", name, PLAN))
            memory.take_in(Holding(name, "alpha", PLAN, PLAN, str(wrapped)))
        memory.close()

    def wrapped(self) -> dict[str, WrappedKey]:
        memory = CustodyMemory(self.settings.effective_custody_database_url)
        try:
            return {held.artifact: WrappedKey.parse(held.wrapped) for held in memory.holdings()}
        finally:
            memory.close()

    def all_open(self) -> None:
        for name, wrapped in self.wrapped().items():
            assert self.provider.unwrap(wrapped, wrapping_context("alpha", name, PLAN)) == ROOTS[name]
        again = load_or_make(
            self.settings.effective_custody_keys_file, self.provider, self.settings.custody_log_name
        )
        assert again.public == self.keys.public

    def own_versions(self) -> set[int]:
        stored = json.loads(self.settings.effective_custody_keys_file.read_text())
        return {WrappedKey.parse(stored[name]).version for name in ("identity", "envelopes", "log")}

    def logged(self) -> list[tuple[Any, ...]]:
        engine = connect(self.settings.effective_database_url)
        try:
            with reading(engine) as session:
                bodies = [json.loads(leaf.body) for leaf in audit.leaves(session, kind="custody")]
        finally:
            engine.dispose()
        return [(body["action"], body["version"], body["roots"], body["by"]) for body in bodies]


def killed_after_one_root(kind: type[KeyProvider], settings: Settings) -> None:
    """Rotate in a process of its own, which is gone, without a farewell, when the second root is about to be wrapped."""
    child = os.fork()
    if child == 0:
        honest, done = kind.rewrap, []

        def rewrap(self: Any, *given: Any) -> WrappedKey:
            if done:
                os._exit(9)
            done.append(True)
            return honest(self, *given)

        kind.rewrap = rewrap  # type: ignore[method-assign]
        try:
            rotate_kek(settings, "mia", resume=False)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.fixture
def openbao(tmp_path: Path) -> Iterator[tuple[Any, Settings]]:
    with openbao_server() as admin:
        admin.transit_key("sluice")
        admin.policy("rotating", ROTATING)
        token = tmp_path / "token"
        token.write_text(admin.new_token("rotating"))
        yield (
            admin,
            Settings(
                data_dir=tmp_path,
                deployment="test",
                key_provider="openbao",
                openbao_address=admin.address,
                openbao_token_file=token,
                dev=True,
            ),
        )


@pytest.mark.stack
def test_on_openbao_a_killed_rotation_is_gone_on_with_and_the_old_version_can_be_retired(
    openbao: tuple[Any, Settings],
) -> None:
    admin, settings = openbao
    held = Held(settings)
    before = held.wrapped()
    killed_after_one_root(OpenBaoTransit, settings)
    assert sorted(wrapped.version for wrapped in held.wrapped().values()) == [1, 1, 2]
    held.all_open()
    assert held.logged() == [], "what was not finished is not said to be"
    assert rotate_kek(settings, "mia", resume=True) == (2, 2), "no other version, and only what was left"
    assert held.logged() == [("kek_rotated", 2, 2, "mia")]
    assert {wrapped.version for wrapped in held.wrapped().values()} == held.own_versions() == {2}
    admin.call("POST", "transit/keys/sluice/config", min_decryption_version=2)
    held.all_open()
    with pytest.raises(KeyVersionGone):
        held.provider.unwrap(before["art-a"], wrapping_context("alpha", "art-a", PLAN))
    assert rotate_kek(settings, "mia", resume=False) == (3, 3)
    held.all_open()
    held.provider.close()


def test_on_aws_kms_a_rotation_wraps_everything_anew_and_again_when_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """KMS keeps its versions to itself, so going on wraps everything again; on a simulator, see docs/key-providers.md."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        key = boto3.client("kms").create_key()["KeyMetadata"]["Arn"]
        settings = Settings(
            data_dir=tmp_path, deployment="test", key_provider="aws-kms", aws_kms_key_id=key, dev=True
        )
        held = Held(settings)
        before = held.wrapped()
        honest, done = type(held.provider).rewrap, []

        def rewrap(self: Any, *given: Any) -> WrappedKey:
            if done:
                raise KeyboardInterrupt
            done.append(True)
            return honest(self, *given)

        with monkeypatch.context() as patch:
            patch.setattr(type(held.provider), "rewrap", rewrap)
            with pytest.raises(KeyboardInterrupt):
                rotate_kek(settings, "mia", resume=False)
        changed = [name for name, wrapped in held.wrapped().items() if wrapped != before[name]]
        assert len(changed) == 1
        held.all_open()
        assert rotate_kek(settings, "mia", resume=True) == (0, 3)
        assert all(wrapped != before[name] for name, wrapped in held.wrapped().items())
        assert len(boto3.client("kms").list_key_rotations(KeyId=key)["Rotations"]) == 1, (
            "one rotation, not two"
        )
        held.all_open()
        assert held.logged() == [("kek_rotated", 0, 3, "mia")]
