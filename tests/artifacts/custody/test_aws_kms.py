"""What AWS answers, and what is made of it. The positive path runs on the mock in `test_contract`.

The mock decrypts with disabled keys and knows no policies, so refusals are put into its mouth with botocore's own
stubber, in the words that KMS's API reference gives them.
"""

from __future__ import annotations

import boto3
import pytest
from botocore.exceptions import (
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
)
from botocore.stub import Stubber

from artifacts.custody.aws_kms import AwsKms
from artifacts.custody.base import WrappedKey, wrapping_context
from artifacts.custody.errors import (
    KeyServiceDenied,
    KeyServiceMisconfigured,
    KeyServiceUnavailable,
    KeyVersionGone,
    WrappedKeyForeign,
    WrappedKeyInvalid,
)

CONTEXT = wrapping_context("gpt-2", "weights-large", "sha256:" + "1" * 64)
ARN = "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555"
METADATA = {
    "KeyId": ARN.rpartition("/")[2],
    "Arn": ARN,
    "KeyUsage": "ENCRYPT_DECRYPT",
    "KeySpec": "SYMMETRIC_DEFAULT",
    "KeyState": "Enabled",
    "Origin": "AWS_KMS",
}
WRAPPED = WrappedKey("aws-kms", ARN, 0, b"c" * 64)


@pytest.fixture
def stubbed():
    client = boto3.client("kms", "eu-central-1", aws_access_key_id="testing", aws_secret_access_key="testing")
    with Stubber(client) as stub:
        yield AwsKms("alias/sluice", client=client), stub


@pytest.mark.parametrize(
    ("code", "error", "retryable"),
    [
        ("InvalidCiphertextException", WrappedKeyInvalid, False),
        ("IncorrectKeyException", WrappedKeyForeign, False),
        ("AccessDeniedException", KeyServiceDenied, False),
        ("ExpiredTokenException", KeyServiceDenied, False),
        ("UnrecognizedClientException", KeyServiceDenied, False),
        ("DisabledException", KeyVersionGone, False),
        ("KMSInvalidStateException", KeyVersionGone, False),
        ("NotFoundException", KeyServiceMisconfigured, False),
        ("InvalidKeyUsageException", KeyServiceMisconfigured, False),
        ("KeyUnavailableException", KeyServiceUnavailable, True),
        ("DependencyTimeoutException", KeyServiceUnavailable, True),
        ("KMSInternalException", KeyServiceUnavailable, True),
        ("ThrottlingException", KeyServiceUnavailable, True),
        ("LimitExceededException", KeyServiceUnavailable, True),
        ("SomethingNewException", KeyServiceUnavailable, True),
    ],
)
def test_what_kms_refuses_is_told_apart(stubbed, code, error, retryable):
    provider, stub = stubbed
    stub.add_response("describe_key", {"KeyMetadata": METADATA})
    stub.add_client_error("decrypt", code)
    with pytest.raises(error) as refusal:
        provider.unwrap(WRAPPED, CONTEXT)
    assert refusal.value.retryable is retryable


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (EndpointConnectionError(endpoint_url="https://kms"), KeyServiceUnavailable),
        (ConnectTimeoutError(endpoint_url="https://kms"), KeyServiceUnavailable),
        (ReadTimeoutError(endpoint_url="https://kms"), KeyServiceUnavailable),
        (NoCredentialsError(), KeyServiceDenied),
    ],
)
def test_a_kms_that_is_down_slow_or_without_credentials(stubbed, monkeypatch, raised, error):
    provider, _ = stubbed

    def fail(**_arguments):
        raise raised

    monkeypatch.setattr(provider._kms, "describe_key", fail)
    with pytest.raises(error):
        provider.unwrap(WRAPPED, CONTEXT)
    assert not provider.health().ok


def test_the_key_is_named_when_decrypting(stubbed):
    """Without it, KMS would decrypt under whichever key of the account the ciphertext names."""
    provider, stub = stubbed
    stub.add_response("describe_key", {"KeyMetadata": METADATA})
    expected = {"KeyId": ARN, "CiphertextBlob": b"c" * 64, "EncryptionContext": CONTEXT}
    stub.add_response("decrypt", {"Plaintext": b"r" * 32, "KeyId": ARN}, expected)
    assert provider.unwrap(WRAPPED, CONTEXT) == b"r" * 32


def test_an_alias_that_is_moved_does_not_move_us_with_it(stubbed):
    provider, stub = stubbed
    stub.add_response("describe_key", {"KeyMetadata": METADATA})
    for _ in range(2):
        stub.add_response("encrypt", {"CiphertextBlob": b"c" * 64}, None)
    assert provider.wrap(b"r" * 32, CONTEXT).key == provider.wrap(b"r" * 32, CONTEXT).key == ARN


@pytest.mark.parametrize("change", [{"KeySpec": "RSA_2048"}, {"KeyUsage": "SIGN_VERIFY"}])
def test_a_key_that_binds_no_context_is_refused(stubbed, change):
    provider, stub = stubbed
    stub.add_response("describe_key", {"KeyMetadata": {**METADATA, **change}})
    with pytest.raises(KeyServiceMisconfigured, match="symmetric"):
        provider.wrap(b"r" * 32, CONTEXT)


def test_a_disabled_key_is_not_healthy(stubbed):
    provider, stub = stubbed
    stub.add_response("describe_key", {"KeyMetadata": {**METADATA, "KeyState": "Disabled"}})
    assert not provider.health().ok


def test_a_client_without_a_region_says_so(monkeypatch):
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with pytest.raises(KeyServiceMisconfigured, match="region"):
        AwsKms("alias/sluice")
