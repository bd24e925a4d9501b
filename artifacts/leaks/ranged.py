"""A suspect behind HTTP, read by ranges, with a server that is not trusted.

Invariants:
- Every connection, redirects included, is made to an address that was resolved and checked just before, by number: a name
  that resolves differently a moment later changes nothing. Addresses that are not public (private, loopback, link-local,
  shared, reserved, mapped or tunnelled forms of these) are refused unless the operator allows them.
- Redirects are followed here, at most 5, never from https to http; credentials go to the first origin only.
- An answer must be exactly the range that was asked for, of a file of unchanging size and ETag, uncompressed. Not one byte
  more is taken in than was asked for, and every wait counts against the scan's seconds.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpcore
import httpx

from artifacts.leaks.errors import AddressRefused, BudgetError, SourceFailure, UnreadableError, shown
from artifacts.leaks.sources import Budget, Ledger, check_range

FIRST_READ = 64 * 1024
MAX_REDIRECTS = 5
PARALLEL = 4
_CONTENT_RANGE = re.compile(r"^bytes (\d{1,19})-(\d{1,19})/(\d{1,19})$")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], Iterable[str]]
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def _resolve(host: str, port: int) -> list[str]:
    return [str(row[4][0]) for row in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


@dataclass(frozen=True)
class AddressPolicy:
    """Which addresses may be connected to.

    Attributes:
        allow: what the operator allows beside public addresses: networks (`10.1.0.0/16`), addresses (`127.0.0.1`), or
            address and port (`127.0.0.1:8080`, `[::1]:8080`).
        resolver: name resolution, replaceable in tests.
    """

    allow: tuple[str, ...] = ()
    resolver: Resolver = _resolve

    def pick(self, host: str, port: int) -> str:
        """The first address of a host that may be connected to.

        Raises:
            AddressRefused: if there is none.
            SourceFailure: if the name does not resolve.
        """
        try:
            found = [str(ipaddress.ip_address(host.strip("[]")))]
        except ValueError:
            try:
                found = list(self.resolver(host, port))
            except (OSError, UnicodeError) as error:
                raise SourceFailure(f"{shown(host)}: the name does not resolve") from error
        for text in found:
            if self.permits(text, port):
                return text
        raise AddressRefused(
            f"{shown(host)} is at an address that is not public; no request was made (allow it explicitly if it is meant)"
        )

    def permits(self, address: str, port: int) -> bool:
        """Whether one address may be connected to on a port."""
        ip = ipaddress.ip_address(address.split("%", 1)[0])
        if "%" not in address and all(_public(inner) for inner in _inner(ip)):
            return True
        return any(_covers(rule, ip, port) for rule in self.allow)


def _inner(ip: Address) -> list[Address]:
    """An address and the IPv4 addresses hidden in it (mapped, 6to4, Teredo, NAT64)."""
    out: list[Address] = [ip]
    if isinstance(ip, ipaddress.IPv6Address):
        out.extend(a for a in (ip.ipv4_mapped, ip.sixtofour) if a is not None)
        out.extend(ip.teredo or ())
        if ip in _NAT64:
            out.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    return out


def _public(ip: Address) -> bool:
    if isinstance(ip, ipaddress.IPv6Address) and ip in _NAT64:
        return True  # judged by the address inside
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified or ip.is_loopback)


def _covers(rule: str, ip: Address, port: int) -> bool:
    host, colon, last = rule.rpartition(":")
    if colon and last.isdigit() and (host.startswith("[") or ":" not in host):
        return int(last) == port and ip == ipaddress.ip_address(host.strip("[]"))
    return ip in ipaddress.ip_network(rule.strip("[]"), strict=False)


class _GuardedBackend(httpcore.NetworkBackend):
    """Connects by checked address; TLS still verifies the name."""

    def __init__(self, policy: AddressPolicy) -> None:
        self._policy = policy
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        address = self._policy.pick(host, port)
        return self._inner.connect_tcp(address, port, timeout, local_address, socket_options)

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.NetworkStream:
        raise AddressRefused("unix sockets are not scanned")

    def sleep(self, seconds: float) -> None:
        self._inner.sleep(seconds)


@cache
def _tls() -> ssl.SSLContext:
    """Loading the certificates takes 50 ms, as long as the rest of a small scan."""
    return httpx.create_ssl_context(trust_env=False)


class _GuardedTransport(httpx.HTTPTransport):
    def __init__(self, policy: AddressPolicy) -> None:
        super().__init__(verify=_tls())
        self._pool = httpcore.ConnectionPool(
            ssl_context=_tls(),
            max_connections=2 * PARALLEL,
            max_keepalive_connections=2 * PARALLEL,
            network_backend=_GuardedBackend(policy),
        )


class GuardedClient:
    """An HTTP client that reaches only what the policy permits."""

    def __init__(self, policy: AddressPolicy, timeout: float = 10.0) -> None:
        # No proxies from the environment: a proxy would resolve the name itself, behind the check.
        self.http = httpx.Client(
            transport=_GuardedTransport(policy), timeout=timeout, follow_redirects=False, trust_env=False
        )
        self.timeout = timeout

    def close(self) -> None:
        """Close all connections."""
        self.http.close()


def public_url(url: str) -> str:
    """An address without user, password, query and fragment: those may be secrets."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return shown(url.split("?", 1)[0])
    port = f":{parsed.port}" if parsed.port else ""
    host = f"[{parsed.host}]" if ":" in parsed.host else parsed.host
    return shown(f"{parsed.scheme}://{host}{port}{parsed.path}", 400)


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


class HttpSource:
    """One file behind an address (see `sources.ByteSource`). Opening it reads the first 64 KiB and learns the size."""

    def __init__(
        self,
        url: str,
        client: GuardedClient,
        budget: Budget,
        ledger: Ledger,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.location = public_url(url)
        self._client = client
        self._budget = budget
        self._ledger = ledger
        self._headers = dict(headers or {})
        try:
            self._url = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise SourceFailure(f"{self.location}: not an address") from error
        self._origin = _origin(self._url)
        self._etag: str | None = None
        self._total: int | None = None
        self._whole = False
        self.size: int = 0
        self._head = self._fetch(0, FIRST_READ, first=True)
        assert self._total is not None, "the first answer says the size"
        self.size = self._total

    @property
    def bytes_left(self) -> int:
        """Bytes that the budget still allows."""
        return self._budget.bytes_left

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`."""
        check_range(self.location, self.size, offset, length)
        if offset + length <= len(self._head):
            return self._head[offset : offset + length]
        if self._whole:
            raise SourceFailure(f"{self.location}: the server does not serve ranges")
        return self._fetch(offset, length)

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Several ranges over a few connections at once, in their order."""
        if len(ranges) < 2:
            return [self.read(*r) for r in ranges]
        with ThreadPoolExecutor(PARALLEL, thread_name_prefix="leak-range") as pool:
            return list(pool.map(lambda r: self.read(*r), ranges))

    def _fetch(self, offset: int, length: int, *, first: bool = False) -> bytes:
        if not length:
            return b""
        self._budget.reserve(length)
        headers = {
            **self._headers,
            "Range": f"bytes={offset}-{offset + length - 1}",
            "Accept-Encoding": "identity",
        }
        try:
            return self._follow(offset, length, headers, first=first)
        except httpx.TimeoutException as error:
            raise SourceFailure(f"{self.location}: no answer within {self._client.timeout:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            raise SourceFailure(f"{self.location}: {type(error).__name__}: the connection failed") from error
        except ValueError as error:
            raise SourceFailure(f"{self.location}: an address or answer that is malformed") from error

    def _follow(self, offset: int, length: int, headers: dict[str, str], *, first: bool) -> bytes:
        url = self._url
        for _ in range(MAX_REDIRECTS + 1):
            if url.scheme not in ("http", "https"):
                raise AddressRefused(
                    f"{self.location}: leads to {shown(url.scheme, 20)}:, which is not followed"
                )
            sent = (
                headers
                if _origin(url) == self._origin
                else {k: v for k, v in headers.items() if _harmless(k)}
            )
            with self._client.http.stream("GET", url, headers=sent) as answer:
                if not answer.is_redirect:
                    return self._receive(answer, offset, length, first=first)
                target = url.join(answer.headers.get("location", ""))
            if url.scheme == "https" and target.scheme != "https":
                raise AddressRefused(f"{self.location}: redirects from https to {shown(target.scheme, 20)}")
            url = target
        raise SourceFailure(f"{self.location}: more than {MAX_REDIRECTS} redirects")

    def _receive(self, answer: httpx.Response, offset: int, length: int, *, first: bool) -> bytes:
        encoding = answer.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            raise SourceFailure(
                f"{self.location}: answers compressed ({shown(encoding, 20)}) though asked not to"
            )
        if answer.status_code == 206:
            length = self._check_range(answer, offset, length)
        elif answer.status_code == 200 and first:
            length = self._whole_file(answer, length)
        elif answer.status_code == 200:
            raise SourceFailure(f"{self.location}: the server does not serve ranges")
        elif answer.status_code == 416 and first:
            raise UnreadableError(f"{self.location}: an empty file")
        else:
            raise SourceFailure(f"{self.location}: HTTP status {answer.status_code}")
        etag = answer.headers.get("etag")
        if not first and self._etag is not None and etag != self._etag:
            raise SourceFailure(f"{self.location}: the file changed while it was read")
        if first:
            self._etag = etag
        data = self._body(answer, length)
        self._ledger.record(self.location, offset, data, answer.status_code)
        return data

    def _check_range(self, answer: httpx.Response, offset: int, length: int) -> int:
        """The length that a 206 must have; also learns or checks the file's size."""
        held = _CONTENT_RANGE.match(answer.headers.get("content-range", "").strip())
        if held is None:
            raise SourceFailure(f"{self.location}: a partial answer that does not say which part it is")
        begin, end, total = (int(g) for g in held.groups())
        if self._total is not None and total != self._total:
            raise SourceFailure(f"{self.location}: the file's size changed from {self._total} to {total}")
        if begin != offset or end != min(offset + length, total) - 1 or end < begin:
            raise SourceFailure(
                f"{self.location}: asked for bytes {offset}+{length}, was sent {begin}-{end}/{total}"
            )
        self._total = total
        return end - begin + 1

    def _whole_file(self, answer: httpx.Response, asked: int) -> int:
        """A server without ranges: take a file that fits the budget, else only its beginning."""
        text = answer.headers.get("content-length", "")
        if not text.isascii() or not text.isdigit() or len(text) > 18:
            raise SourceFailure(
                f"{self.location}: the server serves no ranges and does not say the file's size"
            )
        self._total = total = int(text)
        self._whole = True
        if total <= asked:
            return total
        try:
            self._budget.reserve(total - asked)
        except BudgetError:
            return asked
        return total

    def _body(self, answer: httpx.Response, length: int) -> bytes:
        data = bytearray()
        for chunk in answer.iter_raw():
            data += chunk
            # An honest answer ends here by itself; one byte more shows that it does not.
            if len(data) > length or (self._whole and len(data) == length):
                break
            if self._budget.seconds_left <= 0:
                raise BudgetError(
                    f"{self.location}: too slow, the scan's {self._budget.max_seconds:g} s are over"
                )
        if len(data) > length and not self._whole:
            raise SourceFailure(f"{self.location}: sent more than the {length} bytes that were asked for")
        if len(data) < length:
            raise SourceFailure(f"{self.location}: sent {len(data)} of {length} bytes")
        return bytes(data[:length])


def _harmless(header: str) -> bool:
    return header.lower() in ("range", "accept-encoding", "user-agent")
