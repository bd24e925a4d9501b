"""The settings of sources: one small document each, checked before anything is asked of anybody.

    sources:
      - {kind: hub, name: hub, parameters: {min: 6000000000, max: 9000000000}, names: ["*acme*"]}
      - {kind: repositories, name: ours, repositories: ["hf:acme/model-7b"]}
      - {kind: urls, name: mirrors, urls: ["https://mirror.example/model.safetensors"]}
      - {kind: buckets, name: staging, prefixes: ["s3://acme-staging/models/"]}

Secrets are not in here: they come in `Options`, from wherever the service keeps them.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from artifacts.leaks.errors import shown
from artifacts.leaks.watching.base import SourceError, Trouble

Kind = Literal["models", "datasets", "spaces"]
_NAME = r"^[a-z0-9]([a-z0-9_.-]{0,62}[a-z0-9])?$"
_REPOSITORY = re.compile(r"^hf:((models|datasets|spaces)/)?[\w.-]{1,96}/[\w.-]{1,96}$", re.ASCII)
_BUCKET = re.compile(r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^\x00-\x1f]*)?$", re.ASCII)


class _Setting(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=_NAME)


class Parameters(BaseModel):
    """How many parameters a model must have to be looked at, both ends included."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min: int = Field(ge=0)
    max: int = Field(ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError("min is larger than max")
        return self


class HubWatch(_Setting):
    """New and changed repositories of the whole Hub.

    Attributes:
        repositories: which listings are followed.
        parameters: only models of about this size, as the Hub counts them; None for all. Repositories whose size the Hub does
            not know (pickled or oddly named files) are not in that listing: `names` finds them whatever their size.
        names: patterns (`*acme*`, case ignored) of `owner/name`; models are followed by size and by these, datasets and spaces,
            whose parameters nobody counts, by these. Without either, all are followed.
        min_bytes: repositories whose storage the Hub says to be smaller are not looked at.
        pull_requests: also look at the pull-request refs of every repository that is found; one call more for each.
        start_hours: how far back the first poll looks.
        overlap_minutes: how far back every later pass looks again, for entries that the Hub lists late.
        full_every_hours: how often the whole filtered listing is gone through, whatever the dates: it finds what was private
            and became public with an old date. None: never.
    """

    kind: Literal["hub"] = "hub"
    repositories: tuple[Kind, ...] = Field(default=("models", "datasets", "spaces"), min_length=1)
    parameters: Parameters | None = None
    names: tuple[str, ...] = Field(default=(), max_length=20)
    min_bytes: int = Field(default=1 << 20, ge=0)
    pull_requests: bool = False
    start_hours: float = Field(default=24.0, ge=0, le=24 * 365)
    overlap_minutes: float = Field(default=10.0, ge=0, le=24 * 60)
    full_every_hours: float | None = Field(default=None, gt=0)


class RepositoriesWatch(_Setting):
    """Named repositories of the Hub: every branch, tag and pull-request ref, and optionally every commit.

    Attributes:
        repositories: `hf:[datasets/|spaces/]owner/name`.
        history: every commit of every ref, not only where the refs point now: weights pushed and deleted stay reachable.
    """

    kind: Literal["repositories"] = "repositories"
    repositories: tuple[str, ...] = Field(min_length=1, max_length=200)
    history: bool = True

    @model_validator(mode="after")
    def _named(self) -> Self:
        _each(self.repositories, _REPOSITORY, "hf:owner/name")
        return self


class UrlsWatch(_Setting):
    """Addresses that somebody named: each is asked for its headers; links are not followed into folders.

    Attributes:
        urls: `http(s)://…`.
    """

    kind: Literal["urls"] = "urls"
    urls: tuple[str, ...] = Field(min_length=1, max_length=1_000)

    @model_validator(mode="after")
    def _named(self) -> Self:
        _each(self.urls, re.compile(r"^https?://[^\s\x00-\x1f]{1,2000}$", re.IGNORECASE), "https://host/path")
        return self


class BucketsWatch(_Setting):
    """Prefixes of S3 buckets: new and changed objects.

    Attributes:
        prefixes: `s3://bucket/prefix`.
        endpoint: address of the object store; None for Amazon's.
        region: of the buckets.
        min_bytes: smaller objects are not looked at.
    """

    kind: Literal["buckets"] = "buckets"
    prefixes: tuple[str, ...] = Field(min_length=1, max_length=100)
    endpoint: str | None = None
    region: str | None = None
    min_bytes: int = Field(default=256 * 1024, ge=0)

    @model_validator(mode="after")
    def _named(self) -> Self:
        _each(self.prefixes, _BUCKET, "s3://bucket/prefix")
        return self


class HoneyToken(BaseModel):
    """A decoy beside staged weights: nobody has a reason to read it, so any access is a sighting.

    Attributes:
        id: what people call it.
        key: the decoy object's key in the bucket that is watched.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=_NAME)
    key: str = Field(min_length=1, max_length=1_024)


class AccessLogWatch(_Setting):
    """The access logs of an own bucket, as S3 server access logging writes them into another.

    Attributes:
        logs: `s3://bucket/prefix` that the logs are written to.
        bucket: the bucket that they speak of.
        expected: requesters (ARN patterns) that may read staged objects; reads by anybody else are sightings. Empty: not judged.
        tokens: decoy objects; any request for one is a sighting.
        endpoint: as in `BucketsWatch`.
        region: as in `BucketsWatch`.
    """

    kind: Literal["access_logs"] = "access_logs"
    logs: str = Field(pattern=_BUCKET)
    bucket: str
    expected: tuple[str, ...] = Field(default=(), max_length=200)
    tokens: tuple[HoneyToken, ...] = Field(default=(), max_length=200)
    endpoint: str | None = None
    region: str | None = None


class FolderWatch(_Setting):
    """A folder of this machine in which operators drop suspects: files, folders, .torrent files, text files of links.

    Attributes:
        path: the folder; links in it are not followed.
        settle_s: a file counts once its size and time did not change for so long.
    """

    kind: Literal["folder"] = "folder"
    path: str = Field(min_length=1)
    settle_s: float = Field(default=5.0, ge=0, le=3_600)


class ReportsWatch(_Setting):
    """What people report and outside monitors send: read from `Options.submissions[queue]`.

    Attributes:
        queue: name of the queue; the source's own name by default.
        kind: `reports` for people, `monitors` for machines, `torrents` for torrent files and magnet links. The source is the
            same; the kind says whose blindness it is.
    """

    kind: Literal["reports", "monitors", "torrents"]
    queue: str | None = None


SourceSpec = Annotated[
    HubWatch | RepositoriesWatch | UrlsWatch | BucketsWatch | AccessLogWatch | FolderWatch | ReportsWatch,
    Field(discriminator="kind"),
]
_ADAPTER: TypeAdapter[SourceSpec] = TypeAdapter(SourceSpec)


def read_spec(data: object) -> SourceSpec:
    """A setting from plain data, for instance a part of a YAML document.

    Raises:
        SourceError: (`Trouble.SETTING`) it is not one; the message names each field and what is wrong with it.
    """
    try:
        return _ADAPTER.validate_python(data)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(str(p) for p in item['loc']) or 'the setting'}: {item['msg']}"
            for item in error.errors(include_url=False)[:5]
        )
        raise SourceError(
            f"the source's setting cannot be used: {shown(wrong, 600)}", Trouble.SETTING
        ) from error


def _each(values: tuple[str, ...], pattern: re.Pattern[str], form: str) -> None:
    for value in values:
        if not pattern.match(value):
            raise ValueError(f"{shown(value, 80)}: not of the form {form}")
    if len(set(values)) != len(values):
        raise ValueError("the same is named twice")
