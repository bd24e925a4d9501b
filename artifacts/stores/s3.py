"""S3, and whatever speaks it: AWS, MinIO, Ceph, R2, or a gateway over something else.

What the live server really does is tried before the first write (`artifacts.stores.s3_probe`). Nothing is overwritten:
`If-None-Match: *` where the server enforces it; elsewhere the key is looked up before and the result checked after, and
`features()` says which race remains. Reads name the ETag that was seen (`If-Match`), and check range and length.

Below the store's prefix, `.sluice/` holds probes and, for servers whose ListParts shows no SHA-256, one empty marker
object per stored part, whose name carries the part's ETag and SHA-256.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Lock
from types import TracebackType
from typing import Any, Self

from botocore.exceptions import BotoCoreError
from urllib3.exceptions import HTTPError

from artifacts.errors import ObjectExists, ObjectMissing, StaleObject, StoreError
from artifacts.stores.base import (
    RESERVED,
    ObjectInfo,
    SeenObjects,
    StoreFeatures,
    check_range,
    check_shape,
    valid_key,
)
from artifacts.stores.retry import Again, RetryPolicy
from artifacts.stores.s3_calls import S3Calls, body_of, checksum, make_client
from artifacts.stores.s3_probe import Probed, probe
from artifacts.stores.s3_upload import S3Upload, abort_stale

MAX_PRESIGN_S = 7 * 24 * 3600
"""Longest life of a presigned URL, in seconds: a limit of SigV4."""

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class SharedS3:
    """A client and what a probe found, for stores of one address and one set of options that are opened again and again.

    Making a client reads the service's whole description, and a probe takes a dozen calls. Threads may share it. Keep it
    for minutes, not for good: credentials of a file and a bucket's settings are looked at anew with the next one.
    """

    def __init__(self) -> None:
        self.probed: Probed | None = None
        self._client: Any = None
        self._lock = Lock()

    def client(self, make: Callable[[], Any]) -> Any:
        """The client; made by the first who asks."""
        with self._lock:
            if self._client is None:
                self._client = make()
            return self._client


class S3Store:
    """`s3://bucket/prefix`.

    Args:
        bucket: the bucket; it must exist.
        prefix: put before every key, with a slash.
        endpoint_url: another server than AWS; without user information.
        region: the bucket's region; by default from the environment, as boto3 does.
        access_key, secret_key, session_token: credentials; by default boto3's own chain finds them.
        sse_kms_key_id: have the server encrypt with this KMS key; an answer without it is an error.
        lock_mode, lock_days: object lock for finished objects: `GOVERNANCE` or `COMPLIANCE`, and for how many days.
        connect_timeout_s, read_timeout_s: seconds until a silent server counts as not answering.
        attempts: tries in all per request (`RetryPolicy`).
        max_connections: connections kept; at least the number of threads that upload.
        shared: what stores of the same address and options share; None: a client of its own, closed with the store.

    Raises:
        StoreError: an option makes no sense. The network is first touched by the first call.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint_url: str | None = None,
        region: str | None = None,
        access_key: str | None = None,
        secret_key: str | None = None,
        session_token: str | None = None,
        sse_kms_key_id: str | None = None,
        lock_mode: str | None = None,
        lock_days: int = 0,
        connect_timeout_s: float = 10,
        read_timeout_s: float = 60,
        attempts: int = 5,
        max_connections: int = 16,
        shared: SharedS3 | None = None,
    ) -> None:
        if not re.fullmatch(r"[a-z0-9A-Z][a-zA-Z0-9._-]{1,62}", bucket):
            raise StoreError(f"s3 store: {bucket!r} is no bucket name")
        if endpoint_url and "@" in endpoint_url:
            raise StoreError(
                "s3 store: the endpoint must not carry credentials; give access_key and secret_key"
            )
        if lock_mode not in {None, "GOVERNANCE", "COMPLIANCE"} or (lock_mode is None) != (lock_days < 1):
            raise StoreError("s3 store: lock_mode is GOVERNANCE or COMPLIANCE, with lock_days of at least 1")
        self.bucket, self._prefix = bucket, prefix.strip("/")
        if self._prefix:
            valid_key(self._prefix)
        self._base = f"{self._prefix}/" if self._prefix else ""
        self._shared = shared
        make = partial(
            make_client,
            endpoint_url=endpoint_url,
            region=region,
            access_key=access_key,
            secret_key=secret_key,
            session_token=session_token,
            connect_timeout_s=connect_timeout_s,
            read_timeout_s=read_timeout_s,
            max_connections=max_connections,
        )
        client = make() if shared is None else shared.client(make)
        self.calls = S3Calls(client, self.uri, RetryPolicy(attempts=attempts))
        self._kms, self._lock_mode, self._lock_days = sse_kms_key_id, lock_mode, lock_days
        self._seen = SeenObjects()
        self._probed: Probed | None = None if shared is None else shared.probed
        self._bucket_seen = False

    def __repr__(self) -> str:
        return f"S3Store({self.uri!r})"

    @property
    def uri(self) -> str:
        """`s3://bucket/prefix`."""
        return f"s3://{self.bucket}/{self._prefix}".rstrip("/")

    def features(self) -> StoreFeatures:
        """Tried on the live server once, with objects below `.sluice/probe/`; see `artifacts.stores.s3_probe`.

        Raises:
            StoreError: object lock is asked for and the bucket has none.
        """
        return self.probed().features

    def probed(self) -> Probed:
        """What the probe found, the details for `S3Upload` included."""
        if self._probed is None:
            probed = probe(self.calls, self.bucket, self._base)
            if self._lock_mode and not probed.features.object_lock:
                raise StoreError(
                    f"{self.uri}: lock_mode is set, but {probed.features.lacking['object_lock']}"
                )
            self._probed = probed
            if self._shared is not None:
                self._shared.probed = probed
        return self._probed

    def put(self, key: str, data: bytes | bytearray | memoryview, sha256: str | None = None) -> ObjectInfo:
        """See `Store.put`. One conditional PUT; its lost answer is recognised by the bytes that are there."""
        name = self.name(valid_key(key))
        digest = sha256 or hashlib.sha256(data).hexdigest()
        conditional = self.probed().features.conditional_create
        if not conditional and self.stat(key) is not None:
            return self._same_or_refuse(key, data)
        extra = {"IfNoneMatch": "*"} if conditional else {}
        try:
            answer = self.calls(
                "put_object",
                key,
                Bucket=self.bucket,
                Key=name,
                Body=body_of(data),
                **checksum(digest),
                **self.write_options(),
                **extra,
            )
        except ObjectExists:
            return self._same_or_refuse(key, data)
        self.check_encrypted(key, answer)
        self.ensure_locked(key)
        etag, size = str(answer["ETag"]).strip('"'), memoryview(data).nbytes
        if not conditional and self.known(key, size).etag != etag:
            raise ObjectExists(
                f"{self.uri}: {key}: another writer replaced it at the same moment; see features()"
            )
        return self._seen.remember(ObjectInfo(key, size, etag, digest, version=answer.get("VersionId")))

    def begin(self, key: str, part_count: int, part_size: int) -> S3Upload:
        """See `Store.begin`. Parts are S3's own: at least 5 MiB each but the last, at most 5 GiB."""
        valid_key(key)
        check_shape(key, part_count, part_size)
        self.probed()
        if self.stat(key) is not None:
            raise ObjectExists(f"{self.uri}: {key}: is there already; nothing is overwritten")
        return S3Upload.begin(self, key, part_count, part_size)

    def stat(self, key: str) -> ObjectInfo | None:
        """See `Store.stat`."""
        try:
            answer = self.calls("head_object", key, Bucket=self.bucket, Key=self.name(valid_key(key)))
        except ObjectMissing:
            self._seen.forget(key)
            self._check_bucket()
            return None
        return self._seen.remember(
            ObjectInfo(
                key,
                int(answer["ContentLength"]),
                str(answer["ETag"]).strip('"'),
                modified=answer.get("LastModified"),
                version=answer.get("VersionId"),
            )
        )

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """See `Store.get_range`. A connection that is cut in the middle goes on where it stopped."""
        valid_key(key)
        where = f"{self.uri}: {key}"
        info = self._seen.get(key) or self.stat(key)
        if info is None:
            raise ObjectMissing(f"{where}: no such object")
        check_range(where, start, length, info.size)
        got = bytearray()

        def attempt() -> None:
            while len(got) < length:
                self._read_some(info, start + len(got), length - len(got), got)

        self.calls.policy.run(where, attempt)
        return bytes(got)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Store.list`."""
        token: dict[str, str] = {}
        while True:
            answer = self.calls(
                "list_objects_v2", prefix, Bucket=self.bucket, Prefix=self._base + prefix, **token
            )
            for item in answer.get("Contents", []):
                key = str(item["Key"])[len(self._base) :]
                if not key.startswith(f"{RESERVED}/") and not key.endswith("/"):
                    etag = str(item["ETag"]).strip('"')
                    yield ObjectInfo(key, int(item["Size"]), etag, modified=item["LastModified"])
            if not answer.get("IsTruncated"):
                return
            token = {"ContinuationToken": str(answer["NextContinuationToken"])}

    def delete(self, key: str) -> None:
        """See `Store.delete`. In a versioned bucket the old version stays behind a delete marker."""
        self.calls("delete_object", key, Bucket=self.bucket, Key=self.name(valid_key(key)))
        self._seen.forget(key)

    def presign(self, key: str, expires_s: int) -> str | None:
        """See `Store.presign`. The URL is a secret: whoever has it can read the (sealed) object until it expires.

        Raises:
            StoreError: `expires_s` is not between 1 second and 7 days.
        """
        if not 1 <= expires_s <= MAX_PRESIGN_S:
            raise StoreError(f"{self.uri}: {key}: a presigned URL lives 1 to {MAX_PRESIGN_S} seconds")
        params = {"Bucket": self.bucket, "Key": self.name(valid_key(key))}
        return str(self.calls.client.generate_presigned_url("get_object", Params=params, ExpiresIn=expires_s))

    def abort_stale(self, older_than: timedelta) -> tuple[str, ...]:
        """See `Store.abort_stale`. Markers of uploads that are gone go as well."""
        return abort_stale(self, older_than)

    def batch(self, message: str = "Add sealed files") -> contextlib.AbstractContextManager[None]:
        """See `Store.batch`: here every object appears by itself, at once."""
        return contextlib.nullcontext()

    def close(self) -> None:
        """Close the client's connections, unless others use them as well."""
        if self._shared is None:
            self.calls.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- for S3Upload ---------------------------------------------------------------------------------------------

    def name(self, key: str) -> str:
        """The full name of `key` in the bucket."""
        return self._base + key

    def key_of(self, name: str) -> str:
        """The key of a full name in the bucket."""
        return name[len(self._base) :]

    def write_options(self) -> dict[str, Any]:
        """Encryption and lock, as parameters of PutObject and CreateMultipartUpload."""
        options: dict[str, Any] = {}
        if self._kms:
            options |= {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self._kms}
        if self._lock_mode:
            until = datetime.now(UTC) + timedelta(days=self._lock_days)
            options |= {"ObjectLockMode": self._lock_mode, "ObjectLockRetainUntilDate": until}
        return options

    def check_encrypted(self, key: str, answer: Any) -> None:
        """Refuse to go on if KMS encryption was asked for and the server's answer does not confirm it."""
        if self._kms and answer.get("ServerSideEncryption") not in {"aws:kms", "aws:kms:dsse"}:
            raise StoreError(f"{self.uri}: {key}: the server ignored the request to encrypt with a KMS key")

    def ensure_locked(self, key: str) -> None:
        """Lock the finished object if it is not yet: not every server takes the lock from the upload's beginning."""
        if self._lock_mode is None:
            return
        named = {"Bucket": self.bucket, "Key": self.name(key)}
        head = self.calls("head_object", key, **named)
        if head.get("ObjectLockMode") == self._lock_mode:
            return
        until = datetime.now(UTC) + timedelta(days=self._lock_days)
        retention = {"Mode": self._lock_mode, "RetainUntilDate": until}
        self.calls("put_object_retention", key, **named, Retention=retention)
        if self.calls("head_object", key, **named).get("ObjectLockMode") != self._lock_mode:
            raise StoreError(f"{self.uri}: {key}: is stored, but the server did not lock it")

    def known(self, key: str, size: int) -> ObjectInfo:
        """What was just written under `key`, `size` bytes long."""
        info = self.stat(key)
        if info is None or info.size != size:
            raise StaleObject(f"{self.uri}: {key}: was written, but the server does not show it as it is")
        return info

    # -- inside ---------------------------------------------------------------------------------------------------

    def _read_some(self, info: ObjectInfo, start: int, length: int, into: bytearray) -> None:
        """One GET, appended to `into`; `Again` if the answer was cut off (what came before the cut is kept)."""
        where = f"{self.uri}: {info.key}"
        end = start + length - 1
        answer = self.calls(
            "get_object",
            info.key,
            Bucket=self.bucket,
            Key=self.name(info.key),
            Range=f"bytes={start}-{end}",
            IfMatch=f'"{info.etag}"',
        )
        body = answer["Body"]
        try:
            if str(answer.get("ETag", "")).strip('"') != info.etag:
                raise StaleObject(f"{where}: holds other bytes than when it was looked at")
            match = _CONTENT_RANGE.fullmatch(str(answer.get("ContentRange", "")))
            if match is None or tuple(map(int, match.groups())) != (start, end, info.size):
                said = answer.get("ContentRange", "the whole object")
                raise StaleObject(
                    f"{where}: asked for bytes {start}-{end}/{info.size}, the answer has {said}"
                )
            before = len(into)
            for piece in body.iter_chunks(1024 * 1024):
                into += piece
            if len(into) - before > length:
                raise StaleObject(f"{where}: the answer is longer than it says")
            if len(into) - before < length:
                raise Again(f"an answer ended after {len(into) - before} of {length} bytes")
        except (BotoCoreError, HTTPError, OSError) as error:
            raise Again(f"the connection was cut while reading ({type(error).__name__})") from error
        finally:
            body.close()

    def _same_or_refuse(self, key: str, data: bytes | bytearray | memoryview) -> ObjectInfo:
        """The info of what is there, if its bytes are `data`; else `ObjectExists`."""
        view = memoryview(data).cast("B")
        info = self.stat(key)
        if info is None:
            raise StaleObject(f"{self.uri}: {key}: is said to exist and to be missing; ask again later")
        step = 8 * 1024 * 1024
        if info.size != len(view) or any(
            self.get_range(key, at, min(step, len(view) - at)) != view[at : at + step]
            for at in range(0, len(view), step)
        ):
            raise ObjectExists(f"{self.uri}: {key}: holds other bytes; nothing was overwritten")
        return info

    def _check_bucket(self) -> None:
        """HEAD says 404 for a missing bucket too: make sure once that the bucket is there."""
        if not self._bucket_seen:
            try:
                self.calls("head_bucket", "", Bucket=self.bucket)
            except ObjectMissing as error:
                raise StoreError(
                    f"{self.uri}: the bucket does not exist; check the store's address"
                ) from error
            self._bucket_seen = True
