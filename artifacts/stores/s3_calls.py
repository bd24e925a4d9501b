"""How S3 is called: the client, one hash per part, bounded retries, and errors in the stores' words.

One SHA-256 serves three ends. The caller has hashed the sealed part; that value travels as `x-amz-checksum-sha256`,
stands in the signature as the payload hash (`x-amz-content-sha256`) instead of a second hash by the signer, and is
what the server checks the body against. Servers without the newer checksum headers (MinIO's older gateways among
them) still check the signed payload hash.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from typing import Any

import boto3
import botocore.auth
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
)
from botocore.exceptions import (
    ConnectionError as BotoConnectionError,
)

from artifacts.errors import AccessDenied, ObjectExists, ObjectMissing, StaleObject, StoreError
from artifacts.stores.retry import Again, RetryPolicy, retry_after

SIGNER = "sluice-s3v4"

_DENIED = {
    "AccessDenied",
    "AccountProblem",
    "AllAccessDisabled",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "Forbidden",
    "403",
    "401",
}
_AGAIN = {
    "InternalError",
    "OperationAborted",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "ConditionalRequestConflict",
}
WRONG_BYTES = {
    "BadDigest",
    "InvalidDigest",
    "XAmzContentSHA256Mismatch",
    "XAmzContentChecksumMismatch",
    "ChecksumMismatch",
}


class KnownHashAuth(botocore.auth.S3SigV4Auth):  # type: ignore[misc]
    """SigV4 that takes the payload hash from the SHA-256 checksum header instead of hashing the body again."""

    def payload(self, request: Any) -> str:
        """The hex payload hash for the canonical request."""
        known = request.headers.get("x-amz-checksum-sha256")
        if known:
            return base64.b64decode(known).hex()
        return str(super().payload(request))


def make_client(
    *,
    endpoint_url: str | None,
    region: str | None,
    access_key: str | None,
    secret_key: str | None,
    session_token: str | None,
    connect_timeout_s: float,
    read_timeout_s: float,
    max_connections: int,
) -> Any:
    """A boto3 client without retries of its own (see `S3Calls`), signing bodies by their known hash."""
    botocore.auth.AUTH_TYPE_MAPS.setdefault(SIGNER, KnownHashAuth)
    session = boto3.session.Session(
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        aws_session_token=session_token,
        region_name=region,
    )
    # As boto3 itself takes it; a path style is chosen for both.
    elsewhere = endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    client = session.client(
        "s3",
        endpoint_url=endpoint_url,
        config=Config(
            retries={"total_max_attempts": 1, "mode": "standard"},
            connect_timeout=connect_timeout_s,
            read_timeout=read_timeout_s,
            max_pool_connections=max_connections,
            # Buckets as host names need DNS that only the big providers have.
            s3={"addressing_style": "path" if elsewhere else "auto"},
            # Else presigned links are of version 2, which most regions and SSE-KMS refuse.
            signature_version="s3v4",
            # Our own SHA-256 goes along where there is a body to check; a CRC on top would be a second pass.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )
    for operation in ("PutObject", "UploadPart"):
        client.meta.events.register(f"choose-signer.s3.{operation}", lambda **_: SIGNER)
    return client


def checksum(sha256: str) -> dict[str, str]:
    """The request parameters that carry a SHA-256 (hex) the caller knows already."""
    value = base64.b64encode(bytes.fromhex(sha256)).decode()
    return {"ChecksumAlgorithm": "SHA256", "ChecksumSHA256": value}


def body_of(data: bytes | bytearray | memoryview) -> bytes | bytearray:
    """`data` as boto3 takes it, without copying where that is possible."""
    if isinstance(data, (bytes, bytearray)):
        return data
    if isinstance(data.obj, (bytes, bytearray)) and data.nbytes == len(data.obj):
        return data.obj
    return bytes(data)


class S3Calls:
    """Calls operations of a client with the retry policy, and translates what goes wrong."""

    def __init__(self, client: Any, where: str, policy: RetryPolicy) -> None:
        self.client, self.where, self.policy = client, where, policy

    def __call__(self, operation: str, what: str, **params: Any) -> Mapping[str, Any]:
        """The answer of `operation` (boto3's method name); `what` names the object in errors.

        Raises:
            AccessDenied, ObjectMissing, ObjectExists, StaleObject, StoreError, StoreUnavailable.
        """
        where = f"{self.where}: {what}" if what else self.where

        def attempt() -> Mapping[str, Any]:
            with_retry = getattr(self.client, operation)
            try:
                return with_retry(**params)  # type: ignore[no-any-return]
            except ClientError as error:
                raise translate(error, where) from error
            except (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError) as error:
                raise AccessDenied(f"{where}: no usable credentials ({type(error).__name__})") from error
            except (BotoConnectionError, HTTPClientError) as error:
                raise Again(f"{operation} got no whole answer ({type(error).__name__})") from error
            except BotoCoreError as error:
                raise StoreError(f"{where}: {operation} failed: {error}") from error

        return self.policy.run(where, attempt)


def error_code(error: ClientError) -> tuple[str, int]:
    """S3's error code and the HTTP status."""
    answer = error.response
    return str(answer.get("Error", {}).get("Code", "")), int(
        answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    )


def translate(error: ClientError, where: str) -> Exception:
    """The store's own error for one of boto3's; the server's message stays out, as it may repeat the request."""
    code, status = error_code(error)
    said = f"{error.operation_name} answered {status} {code}".rstrip()
    if code in _AGAIN or status in {429, 500, 502, 503, 504}:
        headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        return Again(said, retry_after(headers.get("retry-after")))
    if code == "NoSuchKey" and error.operation_name in {"PutObject", "CreateMultipartUpload"}:
        # of a gateway over a file system: the folder went away with its last object, in the same moment
        return Again(said)
    if code == "NoSuchBucket":
        return StoreError(f"{where}: the bucket does not exist; check the store's address")
    if code == "NoSuchUpload":
        return UploadGone(f"{where}: the unfinished upload is gone")
    if code in _DENIED or status in {401, 403}:
        return AccessDenied(f"{where}: {said}; check the credentials and the bucket's policy")
    if code == "PreconditionFailed" or status == 412:
        if error.operation_name in {"GetObject", "HeadObject"}:
            return StaleObject(f"{where}: holds other bytes than when it was looked at")
        return ObjectExists(f"{where}: is there already; nothing was overwritten")
    if code in WRONG_BYTES:
        return WrongBytes(f"{where}: the server received other bytes than were sent ({code})")
    if status == 404:
        return ObjectMissing(f"{where}: no such object")
    if status == 416:
        return StoreError(f"{where}: the range leaves the object")
    return StoreError(f"{where}: {said}")


class UploadGone(ObjectMissing):
    """The unfinished upload is not there: aborted, or completed by an earlier try."""


class WrongBytes(StoreError):  # noqa: N818
    """The server refused a body because its checksum differs: the bytes changed on the way."""
