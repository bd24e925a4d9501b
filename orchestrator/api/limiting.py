"""Rate limits: so many requests in a time for each principal, and so many unknown tokens for each address.

Counted in this process (several API processes allow several times as much), in a sliding window.
"""

from __future__ import annotations

import math
import time

from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from orchestrator.api.problems import TooManyRequests
from orchestrator.domain.errors import Reason


class Limiter:
    """Counts requests.

    Args:
        principals: such as `12000/minute`, for each principal; None: no limit.
        strangers: for each address, requests with a token that is not known; None: no limit.
        links: for each principal, requests for links to sealed files; None: no limit.
        reports: for each address, leak reports without an account; None: no limit.
        reports_all: of all addresses together; None: no limit.
        invited: for each address, requests on invitations without an account; None: no limit.
    """

    def __init__(
        self,
        *,
        principals: str | None,
        strangers: str | None,
        links: str | None = None,
        reports: str | None = "6/hour",
        reports_all: str | None = "200/hour",
        invited: str | None = "60/hour",
    ) -> None:
        self._principals = None if principals is None else parse(principals)
        self._strangers = None if strangers is None else parse(strangers)
        self._links = None if links is None else parse(links)
        self._reports = None if reports is None else parse(reports)
        self._reports_all = None if reports_all is None else parse(reports_all)
        self._invited = None if invited is None else parse(invited)
        self._windows = SlidingWindowCounterRateLimiter(MemoryStorage())

    def principal(self, name: str) -> None:
        """Count a request of a principal.

        Raises:
            TooManyRequests: it was one too many.
        """
        self._hit(self._principals, "principal", name)

    def stranger(self, address: str) -> None:
        """Count a request that nobody known made.

        Raises:
            TooManyRequests: it was one too many.
        """
        self._hit(self._strangers, "stranger", address)

    def links(self, name: str) -> None:
        """Count a principal's request for links.

        Raises:
            TooManyRequests: it was one too many.
        """
        self._hit(self._links, "links", name)

    def reporter(self, address: str) -> None:
        """Count a leak report that nobody known made.

        Raises:
            TooManyRequests: it was one too many, of this address or of all.
        """
        self._hit(self._reports, "report", address)
        self._hit(self._reports_all, "report", "*")

    def invited(self, address: str) -> None:
        """Count a request on an invitation, whether there is such a one or not.

        Raises:
            TooManyRequests: it was one too many.
        """
        self._hit(self._invited, "invited", address)

    def _hit(self, limit: RateLimitItem | None, kind: str, who: str) -> None:
        if limit is None or self._windows.hit(limit, kind, who):
            return
        reset = self._windows.get_window_stats(limit, kind, who).reset_time
        seconds = max(1, math.ceil(reset - time.time()))
        raise TooManyRequests(
            f"more than {limit} requests",
            [Reason("rate", f"try again in {seconds} s")],
            retry_after=min(seconds, limit.get_expiry()),
        )
