"""Objects of S3 as a scan's target, and the guarded client that lists them. Every request obeys the address policy."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import rfc8785

from artifacts.leaks.asking import Asker, s3_requests
from artifacts.leaks.errors import LyingError, SourceFailure, UnreadableError, shown
from artifacts.leaks.matching import ListedFile
from artifacts.leaks.ranged import AddressPolicy, GuardedClient, HttpSource
from artifacts.leaks.sources import Budget, ByteSource, Ledger
from artifacts.leaks.targets import ObjectStoreOptions, Target, TargetFile

_TARGET = re.compile(r"^s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/([^\x00-\x1f]{0,1024})$", re.ASCII)
MAX_LISTING = 64 << 20
_LINK_LIFE_S = 900


class ObjectStoreRefused(SourceFailure):
    """The object store answered that this cannot be: no such bucket, no rights, an invalid request.

    Attributes:
        code: the store's own code, such as `AccessDenied`.
    """

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


def s3_client(options: ObjectStoreOptions, asker: Asker | None) -> Any:
    """A boto3 client that asks through `asker`; None for one that only signs."""
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    # Unsigned requests show no key. Without one here boto3 would look for credentials, also at the instance's metadata address.
    nobody = "anonymous" if options.anonymous else None
    session = boto3.session.Session(
        aws_access_key_id=nobody or options.access_key,
        aws_secret_access_key=nobody or options.secret_key,
        aws_session_token=None if nobody else options.session_token,
        region_name=options.region or "us-east-1",
    )
    client = session.client(
        "s3",
        endpoint_url=options.endpoint,
        config=Config(
            retries={"total_max_attempts": 1, "mode": "standard"},
            signature_version=UNSIGNED if options.anonymous else "s3v4",
            s3={"addressing_style": "path" if options.endpoint else "auto"},
        ),
    )
    if asker is not None:
        s3_requests(client, asker)
    return client


def s3_call(what: str, call: Callable[..., Mapping[str, Any]], **arguments: Any) -> Mapping[str, Any]:
    """The answer of one operation.

    Raises:
        ObjectStoreRefused: it says no.
        LyingError: its answer is none that S3 gives.
        UnreadableError: see `Asker.ask`.
    """
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    try:
        return call(**arguments)
    except ClientError as error:
        code = shown(error.response.get("Error", {}).get("Code", "?"), 60)
        raise ObjectStoreRefused(f"{what}: the object store says {code}", code) from error
    except (ResponseParserError, ValueError, KeyError) as error:
        raise LyingError(f"{what}: not an answer of an object store") from error
    except BotoCoreError as error:
        name = type(error).__name__
        raise ObjectStoreRefused(f"{what}: {name}: check the credentials and the address", name) from error


def open_objects(
    target: str,
    budget: Budget,
    ledger: Ledger,
    addresses: AddressPolicy,
    options: ObjectStoreOptions,
    max_files: int,
) -> Target:
    """An object, or all below a prefix that ends in a slash, by one listing and ranges over signed links.

    Raises:
        UnreadableError: if it is not there or the store does not answer.
    """
    match = _TARGET.match(target)
    if match is None:
        raise UnreadableError(f"{shown(target)}: not of the form s3://bucket/key or s3://bucket/prefix/")
    bucket, key = match[1], match[2]
    label = shown(target, 400)
    allowance = Budget(MAX_LISTING, budget.max_requests, max(0.0, budget.seconds_left), budget.max_wait)
    asker = Asker(addresses, allowance, on_answer=lambda _: budget.reserve(0))
    with asker:
        lister = s3_client(options, asker)
        single = bool(key) and not key.endswith("/")
        rows, more = (_one if single else _list)(lister, bucket, key, max_files)
    ledger.record(f"{label} (listing)", None, rfc8785.dumps(rows))
    client, signer = GuardedClient(addresses, budget.max_wait), s3_client(options, None)

    def opener(at: str) -> Callable[[], ByteSource]:
        def open_it() -> ByteSource:
            url = signer.generate_presigned_url(
                "get_object", Params={"Bucket": bucket, "Key": at}, ExpiresIn=_LINK_LIFE_S
            )
            return HttpSource(url, client, budget, ledger)

        return open_it

    files = []
    for row in rows:
        location = shown(f"s3://{bucket}/{row['key']}", 400)
        files.append(TargetFile(location, ListedFile(location, row["size"]), opener(row["key"])))
    notes = [f"only the first {max_files} objects were listed"] if more else []
    return Target(label, files, single, notes, closers=[client.close])


def _one(client: Any, bucket: str, key: str, _: int) -> tuple[list[dict[str, Any]], bool]:
    found = s3_call(f"s3://{bucket}/{shown(key)}", client.head_object, Bucket=bucket, Key=key)
    return [{"key": key, "size": int(found["ContentLength"]), "etag": str(found.get("ETag", ""))}], False


def _list(client: Any, bucket: str, prefix: str, limit: int) -> tuple[list[dict[str, Any]], bool]:
    rows: list[dict[str, Any]] = []
    while True:
        page, more = list_page(client, bucket, prefix, rows[-1]["key"] if rows else "")
        rows += page
        if len(rows) > limit:
            return rows[:limit], True
        if not more:
            return rows, False


def list_page(
    client: Any, bucket: str, prefix: str, behind: str, at_most: int = 1_000
) -> tuple[list[dict[str, Any]], bool]:
    """One page of a listing as plain rows (key, size, etag, modified), and whether there are more.

    Pages are asked for by the last key of the one before, not by the store's token: that can be kept and repeated.

    Args:
        client: see `s3_client`.
        bucket: its name.
        prefix: of the keys.
        behind: rows begin behind this key.
        at_most: rows.

    Raises:
        LyingError: the listing goes back, or does not move.
        UnreadableError: see `s3_call`.
    """
    where = f"s3://{bucket}/{shown(prefix)}"
    after = {"StartAfter": behind} if behind else {}
    answer = s3_call(where, client.list_objects_v2, Bucket=bucket, Prefix=prefix, MaxKeys=at_most, **after)
    rows = []
    for item in answer.get("Contents", []):
        key = str(item["Key"])
        if behind and key.encode() <= behind.encode():
            raise LyingError(f"{where}: the listing gives the same page for ever")
        behind = key
        modified = item.get("LastModified")
        rows.append(
            {
                "key": key,
                "size": int(item.get("Size", 0)),
                "etag": str(item.get("ETag", "")).strip('"'),
                "modified": modified.isoformat() if modified is not None else "",
            }
        )
    more = bool(answer.get("IsTruncated"))
    if more and not rows:
        raise LyingError(f"{where}: an empty page that says there is more")
    return rows, more
