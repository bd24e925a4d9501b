"""Checks that are counted, and what did not hold in words."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Checks:
    """Checks that were made, and what did not hold."""

    made: int = 0
    violations: list[str] = field(default_factory=list)

    def that(self, holds: bool, words: str) -> None:
        """Count a check; keep its words if it does not hold."""
        self.made += 1
        if not holds:
            self.violations.append(words)

    def equal(self, found: object, expected: object, what: str) -> None:
        """Count a check that two things are equal."""
        self.that(found == expected, f"{what}: found {found!r}, expected {expected!r}"[:600])
