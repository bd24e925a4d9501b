"""Unfinished objects on S3: multipart uploads whose parts are the sealed parts, found again by key.

Which parts are stored is asked from ListParts, never from memory. Their SHA-256 comes from there too, or, on servers
that do not list it, from empty marker objects `.sluice/parts/<key>/<upload>/<index>-<size>-<etag>-<sha256>`: a part
without a marker of the very same ETag and size is not trusted and is sent again.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from artifacts.errors import ObjectExists, ObjectMissing, StoreError
from artifacts.stores.base import RESERVED, ObjectInfo, PartInfo, check_complete, check_part, read_parts
from artifacts.stores.s3_calls import UploadGone, WrongBytes, body_of, checksum

if TYPE_CHECKING:
    from artifacts.stores.s3 import S3Store

_MARKERS = f"{RESERVED}/parts/"
_MARKER = re.compile(r"(\d{5})-(\d+)-([0-9A-Za-z-]+)-([0-9a-f]{64})")
_MD5 = re.compile(r"[0-9a-f]{32}")


class S3Upload:
    """One multipart upload of a store. See `artifacts.stores.base.Upload`."""

    def __init__(self, store: S3Store, key: str, part_count: int, part_size: int, upload_id: str) -> None:
        self._store, self._key, self._part_count, self._part_size = store, key, part_count, part_size
        self._id = upload_id
        self._done: ObjectInfo | None = None

    @classmethod
    def begin(cls, store: S3Store, key: str, part_count: int, part_size: int) -> S3Upload:
        """Find the unfinished upload of `key`, or create one. Of several, all processes choose the same."""
        found = _unfinished(store, key)
        while found:
            upload = cls(store, key, part_count, part_size, found[0])
            if upload._fits():
                return upload
            upload.abort()
            found = found[1:]
        name = store.name(key)
        answer = store.calls(
            "create_multipart_upload",
            key,
            Bucket=store.bucket,
            Key=name,
            ChecksumAlgorithm="SHA256",
            ContentType="application/octet-stream",
            **store.write_options(),
        )
        ours = str(answer["UploadId"])
        upload = cls(store, key, part_count, part_size, ours)
        try:
            store.check_encrypted(key, answer)
        except StoreError:
            upload.abort()
            raise
        # Another process may have begun the same file at the same moment: the first of the list wins, for both.
        first = next(iter(_unfinished(store, key)), ours)
        if first != ours:
            upload.abort()
            upload = cls(store, key, part_count, part_size, first)
        return upload

    @property
    def key(self) -> str:
        """The object's key."""
        return self._key

    @property
    def part_count(self) -> int:
        """Number of parts."""
        return self._part_count

    @property
    def part_size(self) -> int:
        """Bytes of every part but the last."""
        return self._part_size

    def parts(self) -> dict[int, PartInfo]:
        """See `Upload.parts`."""
        if self._done:
            return {}
        return {index: part for index, (part, _) in self._stored().items()}

    def put_part(self, index: int, data: bytes | bytearray | memoryview, sha256: str) -> PartInfo:
        """See `Upload.put_part`. A body that changed on the way is sent again."""
        view = memoryview(data).cast("B")
        check_part(self, index, len(view), sha256)
        params = self._params() | {"PartNumber": index + 1, "Body": body_of(view)}
        for remaining in (2, 1, 0):
            try:
                answer = self._call("upload_part", **params, **checksum(sha256))
                break
            except WrongBytes as error:
                if hashlib.sha256(view).hexdigest() != sha256:
                    raise StoreError(
                        f"{self._where()}: part {index}: these bytes have another SHA-256"
                    ) from error
                if not remaining:
                    raise
        part = PartInfo(index, len(view), sha256)
        if not self._store.probed().listed_checksums:
            marker = f"{self.marker_folder()}{index:05d}-{part.size}-{_etag(answer)}-{sha256}"
            self._store.calls("put_object", self._key, Bucket=self._store.bucket, Key=marker, Body=b"")
        return part

    def complete(self) -> ObjectInfo:
        """See `Upload.complete`. If the answer was lost, the object that is there is compared with the parts."""
        if self._done:
            return self._done
        try:
            stored = self._stored()
        except UploadGone:
            raise StoreError(f"{self._where()}: the unfinished upload is gone; begin it again") from None
        size = check_complete(self, {i: p for i, (p, _) in stored.items()})
        features = self._store.probed().features
        if not features.conditional_create and self._store.stat(self._key) is not None:
            info = self._ours_or_refuse(stored, size)
            self.abort()
            return self._finish(info)
        listed = []
        for index, (part, etag) in stored.items():
            entry = {"PartNumber": index + 1, "ETag": f'"{etag}"'}
            if self._store.probed().listed_checksums:
                entry["ChecksumSHA256"] = checksum(part.sha256)["ChecksumSHA256"]
            listed.append(entry)
        extra = {"IfNoneMatch": "*"} if features.conditional_create else {}
        try:
            self._call(
                "complete_multipart_upload", **self._params(), MultipartUpload={"Parts": listed}, **extra
            )
        except (UploadGone, ObjectExists):
            # Either our own earlier try went through and its answer was lost, or somebody else's object is there.
            return self._finish(self._ours_or_refuse(stored, size))
        return self._finish(self._ours_or_refuse(stored, size, fresh=True))

    def abort(self) -> None:
        """See `Upload.abort`."""
        with contextlib.suppress(ObjectMissing):
            self._call("abort_multipart_upload", **self._params())
        self._drop_markers()

    # -- inside ---------------------------------------------------------------------------------------------------

    def _where(self) -> str:
        return f"{self._store.uri}: {self._key}"

    def _params(self) -> dict[str, Any]:
        return {"Bucket": self._store.bucket, "Key": self._store.name(self._key), "UploadId": self._id}

    def _call(self, operation: str, **params: Any) -> Any:
        return self._store.calls(operation, self._key, **params)

    def marker_folder(self) -> str:
        """Full name of the folder of this upload's markers."""
        return self._store.name(_MARKERS) + f"{_short(self._key)}/{_short(self._id)}/"

    def listed(self) -> Iterator[Any]:
        """What ListParts says, page by page."""
        marker = 0
        while True:
            answer = self._call("list_parts", **self._params(), PartNumberMarker=marker)
            yield from answer.get("Parts", [])
            if not answer.get("IsTruncated"):
                return
            marker = int(answer["NextPartNumberMarker"])

    def _stored(self) -> dict[int, tuple[PartInfo, str]]:
        """Part and ETag of everything that is stored and whose SHA-256 is known, by index."""
        known: dict[tuple[int, int, str], str] = {}
        if not self._store.probed().listed_checksums:
            for name in _names(self._store, self.marker_folder()):
                if match := _MARKER.fullmatch(name.rpartition("/")[2]):
                    known[int(match[1]), int(match[2]), match[3]] = match[4]
        found: dict[int, tuple[PartInfo, str]] = {}
        for item in self.listed():
            index, size, etag = int(item["PartNumber"]) - 1, int(item["Size"]), _etag(item)
            if "ChecksumSHA256" in item:
                sha256 = base64.b64decode(item["ChecksumSHA256"]).hex()
            else:
                sha256 = known.get((index, size, etag), "")
            if sha256:
                found[index] = PartInfo(index, size, sha256), etag
        return dict(sorted(found.items()))

    def _fits(self) -> bool:
        """Whether the stored parts could be of an upload of this shape."""
        try:
            for part in self.parts().values():
                check_part(self, part.index, part.size, part.sha256)
        except StoreError:
            return False
        return True

    def _ours_or_refuse(
        self, stored: dict[int, tuple[PartInfo, str]], size: int, *, fresh: bool = False
    ) -> ObjectInfo:
        """The object under our key, if it is the concatenation of `stored`; else `ObjectExists`.

        A multipart ETag is the MD5 of its parts' MD5s, so it can be foretold where ETags are MD5s. Elsewhere
        (encryption with KMS) an object that may be another's is read and hashed.
        """
        info = self._store.stat(self._key)
        if info is None:
            raise StoreError(f"{self._where()}: the unfinished upload is gone; begin it again")
        etags = [etag for _, etag in stored.values()]
        same = info.size == size
        if same and all(_MD5.fullmatch(etag) for etag in etags) and "-" in info.etag:
            joined = hashlib.md5(b"".join(map(bytes.fromhex, etags)), usedforsecurity=False).hexdigest()
            same = info.etag == f"{joined}-{len(etags)}"
        elif same and not fresh:
            there = read_parts(self._store, self._key, self._part_size)
            same = there == {index: part for index, (part, _) in stored.items()}
        if not same:
            raise ObjectExists(
                f"{self._where()}: holds other bytes; nothing of it was overwritten by this upload"
            )
        return info

    def _finish(self, info: ObjectInfo) -> ObjectInfo:
        self._store.ensure_locked(self._key)
        self._done = info
        self._drop_markers()
        return info

    def _drop_markers(self) -> None:
        if not self._store.probed().listed_checksums:
            _delete(self._store, list(_names(self._store, self.marker_folder())))


def _etag(answer: Any) -> str:
    return str(answer["ETag"]).strip('"')


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _unfinished(store: S3Store, key: str) -> list[str]:
    """The ids of unfinished uploads of `key`, the oldest first."""
    found = [
        (u["Initiated"], str(u["UploadId"])) for u in _uploads(store, key) if u["Key"] == store.name(key)
    ]
    return [upload_id for _, upload_id in sorted(found)]


def _uploads(store: S3Store, prefix: str) -> Iterator[Any]:
    marker: dict[str, str] = {}
    while True:
        answer = store.calls(
            "list_multipart_uploads", prefix, Bucket=store.bucket, Prefix=store.name(prefix), **marker
        )
        yield from answer.get("Uploads", [])
        if not answer.get("IsTruncated"):
            return
        marker = {"KeyMarker": answer["NextKeyMarker"], "UploadIdMarker": answer["NextUploadIdMarker"]}


def _names(store: S3Store, prefix: str) -> Iterator[str]:
    """Full names below the full name `prefix`."""
    token: dict[str, str] = {}
    while True:
        answer = store.calls("list_objects_v2", "", Bucket=store.bucket, Prefix=prefix, **token)
        for item in answer.get("Contents", []):
            if not str(item["Key"]).endswith("/"):
                yield str(item["Key"])
        if not answer.get("IsTruncated"):
            return
        token = {"ContinuationToken": str(answer["NextContinuationToken"])}


def _delete(store: S3Store, names: list[str]) -> None:
    for name in names:
        store.calls("delete_object", "", Bucket=store.bucket, Key=name)


def abort_stale(store: S3Store, older_than: timedelta) -> tuple[str, ...]:
    """See `Store.abort_stale`: the newest part tells when an upload last did something."""
    limit = datetime.now(UTC) - older_than
    aborted: list[str] = []
    alive: set[str] = set()
    for item in list(_uploads(store, "")):
        key = store.key_of(str(item["Key"]))
        upload = S3Upload(store, key, 1, 1, str(item["UploadId"]))
        try:
            touched = [part["LastModified"] for part in upload.listed()]
        except UploadGone:
            continue
        if max(touched, default=item["Initiated"]) <= limit:
            upload.abort()
            aborted.append(key)
        else:
            alive.add(upload.marker_folder())
    markers = [n for n in _names(store, store.name(_MARKERS)) if n.rpartition("/")[0] + "/" not in alive]
    by_age = [
        name
        for name in markers
        if store.calls("head_object", "", Bucket=store.bucket, Key=name)["LastModified"] <= limit
    ]
    _delete(store, by_age)
    return tuple(sorted(aborted))
