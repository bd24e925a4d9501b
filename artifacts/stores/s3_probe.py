"""What an S3 server really does, tried on the server itself: S3-compatible is a promise, not a fact.

The probe writes one tiny object and one unfinished upload below `.sluice/probe/`, looks at the answers, and removes
both. Each question is asked separately, so that one answer never hides another.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from artifacts.errors import AccessDenied, ObjectExists, ObjectMissing, StoreError, StoreUnavailable
from artifacts.stores.base import RESERVED, StoreFeatures
from artifacts.stores.s3_calls import S3Calls, WrongBytes, checksum

_FALLBACK = (
    "; the key is looked up before each write and the result checked after, so two writers at the very same moment "
    "could still replace one another"
)
_BYTES = b"sluice store probe"
_SHA = hashlib.sha256(_BYTES).hexdigest()
_OTHER = hashlib.sha256(b"other bytes").hexdigest()


@dataclass(frozen=True, slots=True)
class Probed:
    """The features, and whether ListParts shows the SHA-256 of parts (else markers keep them)."""

    features: StoreFeatures
    listed_checksums: bool


class _Probe:
    def __init__(self, calls: S3Calls, bucket: str, base: str) -> None:
        self.calls, self.bucket = calls, bucket
        self.name = f"{base}{RESERVED}/probe/{secrets.token_hex(12)}"
        self.lacking: dict[str, str] = {}

    def ask(self, operation: str, **params: Any) -> Mapping[str, Any]:
        return self.calls(operation, "probe", Bucket=self.bucket, Key=self.name, **params)

    def refuses(self, error: type[StoreError], attempt: Callable[[], object]) -> str | None:
        """None if `attempt` is refused with `error` as it should be, else what happened instead."""
        try:
            attempt()
        except error:
            return None
        except (AccessDenied, StoreUnavailable):
            raise
        except StoreError as other:
            return f"answered with something else ({str(other).rpartition(': ')[2]})"
        return "did it all the same"

    def bucket_setting(self, feature: str, operation: str, look: Callable[[Mapping[str, Any]], bool]) -> bool:
        try:
            on = look(self.calls(operation, "probe", Bucket=self.bucket))
            why = "it is not turned on for this bucket"
        except ObjectMissing:  # there is no such configuration
            on, why = False, "it is not turned on for this bucket"
        except StoreError as error:
            on, why = False, f"the server does not have it or hides it ({str(error).rpartition(': ')[2]})"
        if not on:
            self.lacking[feature] = why
        return on


def probe(calls: S3Calls, bucket: str, base: str) -> Probed:
    """Ask the live server. With credentials that may not write, everything about writing is said to be lacking.

    Raises:
        StoreError: the bucket is missing. StoreUnavailable: the server does not answer.
    """
    p = _Probe(calls, bucket, base)
    try:
        p.ask("put_object", Body=_BYTES, **checksum(_SHA))
    except AccessDenied:
        reason = "these credentials may not write here, so it could not be tried"
        wanted = ("conditional_create", "part_checksums", "resume", "versioning", "object_lock")
        return Probed(
            StoreFeatures(presign=True, range_reads=True, lacking=dict.fromkeys(wanted, reason)), False
        )
    try:
        return _probe_all(p)
    finally:
        _clean(p)


def _probe_all(p: _Probe) -> Probed:
    again = p.refuses(
        ObjectExists, lambda: p.ask("put_object", Body=_BYTES, IfNoneMatch="*", **checksum(_SHA))
    )
    upload = str(p.ask("create_multipart_upload", ChecksumAlgorithm="SHA256")["UploadId"])
    part = {"UploadId": upload, "PartNumber": 1, "Body": _BYTES}
    try:
        damaged = p.refuses(WrongBytes, lambda: p.ask("upload_part", **part, **checksum(_OTHER)))
        etag = p.ask("upload_part", **part, **checksum(_SHA))["ETag"]
        listed = p.ask("list_parts", UploadId=upload).get("Parts", [])
        uploads = p.calls("list_multipart_uploads", "probe", Bucket=p.bucket, Prefix=p.name).get(
            "Uploads", []
        )
        found = any(u["UploadId"] == upload and u["Key"] == p.name for u in uploads) and len(listed) == 1
        has_sums = found and "ChecksumSHA256" in listed[0]
        one: dict[str, Any] = {"PartNumber": 1, "ETag": etag}
        if has_sums:
            one["ChecksumSHA256"] = listed[0]["ChecksumSHA256"]
        complete = {"UploadId": upload, "MultipartUpload": {"Parts": [one]}, "IfNoneMatch": "*"}
        over = p.refuses(ObjectExists, lambda: p.ask("complete_multipart_upload", **complete))
    finally:
        with contextlib.suppress(ObjectMissing):  # completed: the very thing that the probe found out
            p.ask("abort_multipart_upload", UploadId=upload)
    fallback = (
        "; the key is looked up before each write and the result checked after, so two writers at the very "
    )
    fallback += "same moment could still replace one another"
    if again or over:
        which = "If-None-Match on PutObject" if again else "If-None-Match on CompleteMultipartUpload"
        p.lacking["conditional_create"] = (
            f"asked with {which} to refuse, the server {again or over}{_FALLBACK}"
        )
    if damaged:
        p.lacking["part_checksums"] = (
            f"sent a part with a wrong SHA-256, the server {damaged}; damage on the way shows when it is verified"
        )
    if not found:
        p.lacking["resume"] = "the server does not list unfinished uploads and their parts"
    versioning = p.bucket_setting(
        "versioning", "get_bucket_versioning", lambda a: a.get("Status") == "Enabled"
    )
    locks = p.bucket_setting(
        "object_lock",
        "get_object_lock_configuration",
        lambda a: a.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") == "Enabled",
    )
    presign, ranges = _probe_reads(p)
    return Probed(
        StoreFeatures(
            conditional_create=not again and not over,
            part_checksums=not damaged,
            resume=found,
            presign=presign,
            versioning=versioning,
            object_lock=locks,
            range_reads=ranges,
            lacking=p.lacking,
        ),
        listed_checksums=has_sums,
    )


def _probe_reads(p: _Probe) -> tuple[bool, bool]:
    url = p.calls.client.generate_presigned_url(
        "get_object", Params={"Bucket": p.bucket, "Key": p.name}, ExpiresIn=60
    )
    try:
        answer = httpx.get(url, timeout=10)
        presign = answer.status_code == 200 and answer.content == _BYTES
        why = f"a presigned URL answered {answer.status_code}"
    except httpx.HTTPError as error:
        presign, why = False, f"a presigned URL did not answer ({type(error).__name__})"
    if not presign:
        p.lacking["presign"] = why
    part = p.ask("get_object", Range="bytes=7-11")
    ranges = part["Body"].read() == _BYTES[7:12] and part.get("ContentRange") == f"bytes 7-11/{len(_BYTES)}"
    if not ranges:
        p.lacking["range_reads"] = "the server answers a range with something else"
    return presign, ranges


def _clean(p: _Probe) -> None:
    """Remove the probe; a bucket that locks its objects by default keeps it, which harms nobody."""
    with contextlib.suppress(StoreError):
        p.ask("delete_object")
