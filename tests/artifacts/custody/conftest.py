"""Providers that the contract runs on: a keyring, a real OpenBao server, and a mocked AWS KMS."""

from __future__ import annotations

import itertools
from pathlib import Path

import boto3
import pytest
from moto import mock_aws

from artifacts.custody.aws_kms import AwsKms
from artifacts.custody.base import wrapping_context
from artifacts.custody.local import Argon2Cost, LocalKeyring
from artifacts.custody.openbao import OpenBaoTransit
from tests.support.openbao import openbao_server

CHEAP = Argon2Cost(iterations=1, lanes=1, memory_kib=64)
CONTEXT = wrapping_context("gpt-2", "weights-large", "sha256:" + "1" * 64)
KEY_NAMES = (f"kek-{number}" for number in itertools.count())

CUSTODY_POLICY = """
path "transit/encrypt/{key}" {{ capabilities = ["update"] }}
path "transit/decrypt/{key}" {{ capabilities = ["update"] }}
path "transit/rewrap/{key}" {{ capabilities = ["update"] }}
path "transit/keys/{key}" {{ capabilities = ["read"] }}
path "transit/keys/{key}/rotate" {{ capabilities = ["update"] }}
"""


@pytest.fixture(scope="session")
def bao():
    """One OpenBao server for the session; who seals it unseals it."""
    with openbao_server() as admin:
        yield admin


@pytest.fixture
def transit_key(bao):
    """The name of a new derived key with a policy of the same name."""
    key = next(KEY_NAMES)
    bao.transit_key(key)
    bao.policy(key, CUSTODY_POLICY.format(key=key))
    return key


@pytest.fixture
def bao_token(bao, transit_key, tmp_path: Path):
    """A token file for that key's policy."""
    file = tmp_path / "token"
    file.write_text(bao.new_token(transit_key) + "\n")
    return file


@pytest.fixture
def openbao(bao, transit_key, bao_token):
    provider = OpenBaoTransit(bao.address, transit_key, bao_token, timeout=10)
    yield provider
    provider.close()


@pytest.fixture
def local(tmp_path: Path):
    return LocalKeyring.create(tmp_path / "keyring.json", b"correct horse", cost=CHEAP)


@pytest.fixture
def kms_client(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        yield boto3.client("kms", region_name="eu-central-1")


@pytest.fixture
def aws_kms(kms_client):
    return AwsKms(kms_client.create_key()["KeyMetadata"]["KeyId"], client=kms_client)


@pytest.fixture(params=["local", pytest.param("openbao", marks=pytest.mark.stack), "aws_kms"])
def provider(request):
    """Each provider in turn."""
    return request.getfixturevalue(request.param)
