"""A release's repository on the Hub: its card, a tag per step, who may see it, and whether anybody changed that by hand.

What a step wants is one value, `HubExpectation`; what is there is another, `HubState`. `drift` compares them, and
`settle` brings the repository back, narrowing before it widens, so that no moment in between shows more than either
side of the change. A plan says whether drift is repaired or raised.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from huggingface_hub import CommitOperationAdd
from huggingface_hub.hf_api import RepoFile

from artifacts.errors import ObjectExists, ObjectMissing, StoreError
from artifacts.stores.hub_calls import HubCalls, ListOfOperations

Gating = Literal["off", "auto", "manual"]
OnDrift = Literal["repair", "raise"]

_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,120}")
_ROUNDS = 4


@dataclass(frozen=True, slots=True)
class HubState:
    """What the Hub says of the repository now.

    Attributes:
        private: only members of the owner see it.
        gating: whether downloads need an accepted access request, and who accepts.
        grantees, pending, rejected: user names by the state of their access request (empty where gating is off).
        hidden: accepted requests whose user name the repository does not share.
        head: the commit of `main`.
        tags: tag name -> commit.
    """

    private: bool
    gating: Gating
    grantees: frozenset[str]
    pending: frozenset[str]
    rejected: frozenset[str]
    hidden: int
    head: str
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class HubExpectation:
    """What a step wants; None leaves that part to others."""

    private: bool | None = None
    gating: Gating | None = None
    grantees: frozenset[str] | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Difference:
    """One way in which the repository is not as it should be.

    Attributes:
        what: `visibility`, `gating`, `grantee NAME`, `hidden grantees` or `tag NAME`.
        expected, actual: in words.
        exposes: somebody can see or download more than the step allows.
    """

    what: str
    expected: str
    actual: str
    exposes: bool

    def __str__(self) -> str:
        return f"{self.what}: expected {self.expected}, is {self.actual}"


class HubDrift(StoreError):  # noqa: N818 - a state, as its siblings
    """The repository was changed by hand, and the plan asks to raise that (or it could not be repaired)."""

    def __init__(self, where: str, differences: tuple[Difference, ...]) -> None:
        super().__init__(f"{where}: is not as the release left it: " + "; ".join(map(str, differences)))
        self.differences = differences


@dataclass(frozen=True, slots=True)
class ReleaseCard:
    """What the model card says of the release. Values are plain text; nothing secret belongs here."""

    release: str
    version: str
    step: str
    stage: str
    audience: str
    manifest_digest: str
    plan_digest: str
    license: str | None = None
    components: tuple[str, ...] = ()
    withheld: Mapping[str, str] = field(default_factory=dict)
    terms: str | None = None
    body: str = ""

    def render(self) -> str:
        """README.md: metadata that the Hub reads (YAML), then text."""
        data: dict[str, object] = {
            "tags": ["sluice", "staged-release", f"stage-{self.stage}"],
            "sluice": {
                "release": self.release,
                "version": self.version,
                "step": self.step,
                "stage": self.stage,
                "audience": self.audience,
                "manifest": self.manifest_digest,
                "plan": self.plan_digest,
            },
        }
        if self.license:
            data["license"] = self.license
        if self.terms:
            data["extra_gated_prompt"] = self.terms
        lines = [f"# {self.release} {self.version}", ""]
        lines += [f"Stage: **{self.stage}** (step `{self.step}`), for {self.audience}.", ""]
        lines += ["The files are sealed: reading them takes a key that the release's gate hands out.", ""]
        lines += [f"- manifest `{self.manifest_digest}`", f"- plan `{self.plan_digest}`", ""]
        if self.components:
            lines += ["## Components", "", *(f"- {name}" for name in self.components), ""]
        if self.withheld:
            lines += ["## Withheld", "", *(f"- {name}: {why}" for name, why in self.withheld.items()), ""]
        if self.body:
            lines += [self.body, ""]
        front = "".join(f"{key}: {_yaml(value)}\n" for key, value in sorted(data.items()))
        return f"---\n{front}---\n\n" + "\n".join(lines)


def _yaml(value: object) -> str:
    """`value` as YAML on one line, whatever it holds: a line `---` inside a text would end the metadata early."""
    text = json.dumps(
        value, ensure_ascii=False
    )  # JSON is YAML, but for three line breaks that only YAML knows
    return text.replace("\x85", "\\u0085").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


class HubRelease:
    """The repository `owner/name` of a release. Needs a token that may change its settings.

    Args:
        calls: the repository (`HubCalls`, or a `HubStore`'s `calls`).
    """

    def __init__(self, calls: HubCalls) -> None:
        self._calls, self._api, self._id = calls, calls.api, calls.repo_id

    def __repr__(self) -> str:
        return f"HubRelease({self._calls.where!r})"

    def ensure(self, *, private: bool = True, gating: Gating = "manual") -> bool:
        """Create the repository if it is missing, private first and gated before anything lies in it.

        An existing repository is left as it is (`settle` changes it). True if it was created.
        """
        try:
            self._calls.run("", lambda: self._api.create_repo(self._id, private=True))
        except ObjectExists:
            return False
        self._set(private=None, gating=gating)
        if not private:
            self._set(private=False, gating=None)
        return True

    def publish_card(self, card: ReleaseCard) -> str:
        """Write the model card (the one file that changes from step to step). Gives the commit."""
        text = card.render().encode()
        blob = hashlib.sha1(b"blob %d\0" % len(text) + text, usedforsecurity=False).hexdigest()  # git's id

        def operations(head: str) -> ListOfOperations:
            there = self._api.get_paths_info(self._id, "README.md", revision=head)
            if any(isinstance(item, RepoFile) and item.blob_id == blob for item in there):
                return []
            return [CommitOperationAdd("README.md", io.BytesIO(text))]

        return self._calls.commit("main", f"Model card for step {card.step}", operations)

    def tag_step(self, step: str, commit: str | None = None, message: str = "") -> str:
        """Tag a step's commit (by default the head) as `step/NAME`; the same tag on the same commit is fine.

        Raises:
            ObjectExists: the tag is on another commit; tags of steps never move.
        """
        name = f"step/{step}"
        if not _TAG.fullmatch(name) or ".." in name or name.endswith((".lock", "/")):
            raise StoreError(f"{self._calls.where}: {step!r} cannot be part of a tag name")
        target = commit or self._calls.head()
        try:
            self._calls.run(
                name,
                lambda: self._api.create_tag(
                    self._id, tag=name, revision=target, tag_message=message or None
                ),
            )
        except ObjectExists:
            there = self.observe().tags.get(name)
            if there != target:
                raise ObjectExists(
                    f"{self._calls.where}: tag {name} is on commit {there}, not on {target}; it is left there"
                ) from None
        return target

    # -- access -----------------------------------------------------------------------------------------------------

    def grant(self, user: str) -> None:
        """Let a partner's account in, whether it asked or not. Repeating it is fine."""
        state = self.observe()
        if state.gating == "off":
            raise StoreError(
                f"{self._calls.where}: is not gated, so access cannot be granted to {user} alone"
            )
        if user in state.grantees:
            return
        asked = user in state.pending | state.rejected
        call = self._api.accept_access_request if asked else self._api.grant_access
        self._calls.run(f"access of {user}", lambda: call(self._id, user))

    def reject(self, user: str, reason: str | None = None) -> None:
        """Turn a request down, or take access away. Nothing happens if the account has neither."""
        state = self.observe()
        if user in state.grantees | state.pending:
            self._calls.run(
                f"access of {user}",
                lambda: self._api.reject_access_request(self._id, user, rejection_reason=reason),
            )

    def cancel(self, user: str) -> None:
        """Take access away and put the request back to pending, so that it can be decided anew."""
        if user in (state := self.observe()).grantees | state.rejected:
            self._calls.run(f"access of {user}", lambda: self._api.cancel_access_request(self._id, user))

    # -- drift ------------------------------------------------------------------------------------------------------

    def observe(self) -> HubState:
        """Ask the Hub how the repository is now.

        Raises:
            AccessDenied: it is gone, or the token lost its rights: that is drift as well, and never looks quiet.
        """
        info = self._calls.run("settings", lambda: self._api.model_info(self._id))
        refs = self._calls.run("tags", lambda: self._api.list_repo_refs(self._id))
        gating: Gating = "off" if not info.gated else ("auto" if info.gated == "auto" else "manual")
        users: dict[str, frozenset[str]] = dict.fromkeys(("accepted", "pending", "rejected"), frozenset())
        hidden = 0
        if gating != "off":
            for status, listed in (
                ("accepted", self._api.list_accepted_access_requests),
                ("pending", self._api.list_pending_access_requests),
                ("rejected", self._api.list_rejected_access_requests),
            ):
                requests = self._calls.run(f"{status} access", lambda f=listed: list(f(self._id)))  # type: ignore[misc]
                users[status] = frozenset(r.username for r in requests if r.username)
                hidden += sum(1 for r in requests if not r.username) if status == "accepted" else 0
        return HubState(
            private=bool(info.private),
            gating=gating,
            grantees=users["accepted"],
            pending=users["pending"],
            rejected=users["rejected"],
            hidden=hidden,
            head=str(info.sha),
            tags={tag.name: tag.target_commit for tag in refs.tags},
        )

    def drift(self, expected: HubExpectation, state: HubState | None = None) -> tuple[Difference, ...]:
        """Every difference between `expected` and the repository (or an observed `state`); exposing ones first."""
        state = state or self.observe()
        found: list[Difference] = []
        if expected.private is not None and expected.private != state.private:
            words = {True: "private", False: "public"}
            found.append(
                Difference("visibility", words[expected.private], words[state.private], expected.private)
            )
        order = {"manual": 0, "auto": 1, "off": 2}
        if expected.gating is not None and expected.gating != state.gating:
            exposes = order[state.gating] > order[expected.gating]
            found.append(Difference("gating", expected.gating, state.gating, exposes))
        if expected.grantees is not None and expected.gating != "off" and state.gating != "off":
            found += [
                Difference(f"grantee {user}", "no access", "access", True)
                for user in sorted(state.grantees - expected.grantees)
            ]
            if state.hidden:
                found.append(Difference("hidden grantees", "none", str(state.hidden), True))
            found += [
                Difference(f"grantee {user}", "access", "no access", False)
                for user in sorted(expected.grantees - state.grantees)
            ]
        for tag, commit in expected.tags.items():
            if state.tags.get(tag) != commit:
                found.append(Difference(f"tag {tag}", commit, state.tags.get(tag, "missing"), False))
        return tuple(sorted(found, key=lambda difference: not difference.exposes))

    def settle(self, expected: HubExpectation, on_drift: OnDrift = "repair") -> tuple[Difference, ...]:
        """Make the repository as `expected`; gives what was different. Used at a step's entry and by the sweep.

        Raises:
            HubDrift: there was drift and `on_drift` is `raise`, or it came back after every repair.
        """
        first = differences = self.drift(expected)
        if differences and on_drift == "raise":
            raise HubDrift(self._calls.where, differences)
        for _ in range(_ROUNDS):
            if not differences:
                return first
            self._repair(expected, differences)
            differences = self.drift(expected)
        if differences:
            raise HubDrift(self._calls.where, differences)
        return first

    def _repair(self, expected: HubExpectation, differences: tuple[Difference, ...]) -> None:
        what = {d.what: d for d in differences}
        narrow = {name for name, d in what.items() if d.exposes}
        if "visibility" in narrow:
            self._set(private=True, gating=None)
        if "gating" in narrow:
            self._set(private=None, gating=expected.gating)
            if what["gating"].actual == "off":
                return  # gating that was off hid who has access: look again before anything widens
        for name in what:
            kind, _, user = name.partition(" ")
            if kind == "grantee" and name in narrow:
                self.reject(user, "not granted by this release")
            elif kind == "tag":
                self._move_tag(user, expected.tags[user])
        if "hidden grantees" in what:
            raise HubDrift(self._calls.where, (what["hidden grantees"],))
        if "gating" in what and "gating" not in narrow:
            self._set(private=None, gating=expected.gating)
        for name in what:
            kind, _, user = name.partition(" ")
            if kind == "grantee" and name not in narrow:
                self.grant(user)
        if "visibility" in what and "visibility" not in narrow:
            self._set(private=False, gating=None)

    def _set(self, *, private: bool | None, gating: Gating | None) -> None:
        gated: Literal["auto", "manual", False] | None = False if gating == "off" else gating
        self._calls.run(
            "settings", lambda: self._api.update_repo_settings(self._id, private=private, gated=gated)
        )

    def _move_tag(self, tag: str, commit: str) -> None:
        with contextlib.suppress(ObjectMissing):
            self._calls.run(f"tag {tag}", lambda: self._api.delete_tag(self._id, tag=tag))
        self._calls.run(f"tag {tag}", lambda: self._api.create_tag(self._id, tag=tag, revision=commit))
