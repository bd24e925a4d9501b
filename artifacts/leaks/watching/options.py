"""What sources need beside their setting: what may be asked, how much, with which credentials, and the clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from artifacts.leaks.ranged import AddressPolicy
from artifacts.leaks.targets import HubOptions, ObjectProfiles, ObjectStoreOptions
from artifacts.leaks.watching.base import SubmissionQueue


@dataclass(frozen=True)
class PollLimits:
    """What one poll may cost, whatever the other side sends.

    Attributes:
        max_requests: HTTP requests, redirects included.
        max_bytes: of all answers together.
        max_answer_bytes: of one answer.
        max_seconds: on the clock.
        max_wait: seconds of silence after which the other side has failed.
        max_entries: rows of listings that are looked at.
    """

    max_requests: int = 100
    max_bytes: int = 64 << 20
    max_answer_bytes: int = 16 << 20
    max_seconds: float = 120.0
    max_wait: float = 20.0
    max_entries: int = 20_000


@dataclass(frozen=True)
class Options:
    """What a service gives to its sources.

    Attributes:
        addresses: which addresses may be asked; by default public ones only.
        hub: endpoint and token of the Hub.
        objects: credentials of object stores, whatever the bucket; used where there are no `profiles`.
        profiles: credentials by bucket.
        url_headers: headers (`Authorization`) for named addresses, by host name; sent to that host alone.
        submissions: queues of reports and the like, by name.
        decoys: names of honey tokens by the SHA-256 of the decoy's content, or by an address or key that only it has: a
            candidate that carries one is a sighting, whatever source it comes from.
        limits: of every poll.
        now: the clock; UTC.
    """

    addresses: AddressPolicy = field(default_factory=AddressPolicy)
    hub: HubOptions = field(default_factory=HubOptions)
    objects: ObjectStoreOptions = field(default_factory=ObjectStoreOptions)
    profiles: ObjectProfiles | None = None
    url_headers: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)
    submissions: Mapping[str, SubmissionQueue] = field(default_factory=dict)
    decoys: Mapping[str, str] = field(default_factory=dict)
    limits: PollLimits = field(default_factory=PollLimits)
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def objects_of(self, bucket: str, endpoint: str | None, region: str | None) -> ObjectStoreOptions:
        """How a source reaches a bucket. `endpoint` and `region`: as the source's setting gives them."""
        if self.profiles is not None:
            return self.profiles.of(bucket, endpoint, region)
        return replace(
            self.objects,
            endpoint=endpoint or self.objects.endpoint,
            region=region or self.objects.region,
        )
