"""Break-glass in the audit log, shown apart from everything else: who, what was lifted, why, and whether its review is closed."""

from __future__ import annotations

from typing import Any

from orchestrator.cli.output import escape


class BrokenGlass:
    """Collects it from the entries of a log, in order.

    Attributes:
        found: one object for each proposal to break the glass: release, step, what it lifts, reason, who proposed, endorsed and carried it, the entries,
            and `state`: `proposed`, `not_carried`, `review_open` or `review_closed`.
    """

    def __init__(self) -> None:
        self.found: list[dict[str, Any]] = []
        self._proposals: dict[tuple[str, str], dict[str, Any]] = {}

    def entry(self, index: int, leaf: dict[str, Any]) -> None:
        """Take one entry in; entries of other kinds are passed over."""
        event, release = leaf.get("event"), leaf.get("release")
        if leaf.get("kind") != "event" or not isinstance(event, dict) or not isinstance(release, str):
            return
        match event.get("type"):
            case "proposed" if event.get("action") == "break_glass":
                payload = event["payload"]
                known = self._add(release, payload["step"], payload["waives"], payload["reason"])
                known["people"].append(event["by"])
                known["entries"].append(index)
                self._proposals[release, event["proposal"]] = known
            case "endorsed" if (release, event.get("proposal")) in self._proposals:
                known = self._proposals[release, event["proposal"]]
                known["people"].append(event["by"])
                known["entries"].append(index)
            case "proposal_ended" if (release, event.get("proposal")) in self._proposals:
                known = self._proposals.pop((release, event["proposal"]))
                if not event["carried"]:
                    known["state"] = "not_carried"
            case "glass_broken":
                self._broken(index, release, event)
            case "review_closed":
                self._reviewed(index, release, event)

    def _add(self, release: str, step: str, waives: list[str], reason: str) -> dict[str, Any]:
        made: dict[str, Any] = {
            "release": release,
            "step": step,
            "lifts": sorted(waives),
            "reason": reason,
            "people": [],
            "state": "proposed",
            "at": None,
            "review": None,
            "closed_by": None,
            "outcome": None,
            "entries": [],
        }
        self.found.append(made)
        return made

    def _broken(self, index: int, release: str, event: dict[str, Any]) -> None:
        same = (release, event["step"], sorted(event["waives"]), event["reason"])
        known = next(
            (
                one
                for one in reversed(self.found)
                if one["state"] == "proposed"
                and (one["release"], one["step"], one["lifts"], one["reason"]) == same
            ),
            None,
        ) or self._add(*same)
        update = {"state": "review_open", "at": event["at"], "review": event["review"]}
        known.update(update, people=sorted(event["people"]))
        known["entries"].append(index)

    def _reviewed(self, index: int, release: str, event: dict[str, Any]) -> None:
        for one in self.found:
            if (one["release"], one["review"]) == (release, event["review"]):
                one.update(state="review_closed", closed_by=event["by"], outcome=event["outcome"])
                one["entries"].append(index)

    def lines(self) -> list[str]:
        """In words, one or two lines each; none when no glass was ever broken."""
        told = []
        for one in self.found:
            what = {
                "proposed": "break-glass proposed",
                "not_carried": "break-glass proposed, not carried",
            }.get(one["state"], "BREAK-GLASS")
            numbers = ", ".join(str(number) for number in one["entries"])
            told.append(
                f"[bold red]{what}[/bold red] {escape(one['release'])} at {escape(one['step'])}: {escape(', '.join(one['lifts']))} lifted"
                f" by {escape(', '.join(one['people']))}: {escape(one['reason'])} (entries {numbers})"
            )
            if one["state"] == "review_closed":
                told.append(f"  review closed by {escape(one['closed_by'])}: {escape(one['outcome'])}")
            elif one["state"] == "review_open":
                told.append(f"  [bold red]its review {escape(one['review'])} is OPEN[/bold red]")
        return told
