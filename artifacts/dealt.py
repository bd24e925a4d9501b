"""What a manifest says of key shares: the second lock on an artifact's root, and who holds a share of it.

The member `shares` of a manifest (docs/sealed-format.md section 8). It holds no secret: commitments, the root under a key that
custody's half and k shares make together, and each share in an age envelope that its holder alone opens. The manifest's
digest covers all of it, so that nothing here changes without every sign-off becoming stale. `artifacts.custody.shares`
deals, opens and combines.
"""

from __future__ import annotations

import base64
import re
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_HOLDERS = 16
"""SLIP-0039's limit."""
MAX_ENVELOPE = 8 * 1024
LOCKED_BYTES = 12 + 32 + 16
"""A root under its lock: nonce, root, tag."""

HOLDER = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
"""A name as plans write it."""

Hex64 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ShareHolder(_Strict):
    """One holder.

    Attributes:
        holder: their name in plans.
        recipient: hex SHA-256 of the public key that the share was sealed to.
        commitment: to the share; a share that does not fit is tampered with or foreign.
        envelope: base64 of the age file with the share.
    """

    holder: Annotated[str, Field(pattern=f"^{HOLDER.pattern}$")]
    recipient: Hex64
    commitment: Hex64
    envelope: Annotated[str, Field(min_length=4, max_length=MAX_ENVELOPE)]

    @property
    def sealed(self) -> bytes:
        """The age file."""
        return base64.b64decode(self.envelope)


class DealtShares(_Strict):
    """A set of shares, as it was dealt where the files were sealed.

    Attributes:
        set_id: 32 hex digits, drawn for this dealing.
        threshold: how many shares make the shared secret.
        secret: commitment to the shared secret.
        half: commitment to custody's half.
        custody: custody's public string, which shares are released to; the manifest's `custody` is its fingerprint.
        root: base64 of the artifact's root key under the key that both make.
        holders: who has a share, ordered by name.
    """

    set_id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$", alias="set")]
    threshold: Annotated[int, Field(ge=2, le=MAX_HOLDERS)]
    secret: Hex64
    half: Hex64
    custody: Annotated[str, Field(pattern=r"^sluicecustody1[02-9ac-hj-np-z]{1900,2100}$")]
    root: Annotated[str, Field(min_length=80, max_length=80)]
    holders: Annotated[list[ShareHolder], Field(min_length=2, max_length=MAX_HOLDERS)]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        names = [one.holder for one in self.holders]
        if names != sorted(set(names)):
            raise ValueError("holders stand once each, in order of their names")
        if self.threshold > len(names):
            raise ValueError(f"{self.threshold} shares are needed, but {len(names)} were dealt")
        if len({one.recipient for one in self.holders}) != len(names):
            raise ValueError("two holders have one key; a share belongs to one person")
        if len({one.commitment for one in self.holders}) != len(names):
            raise ValueError("two holders have one share")
        for text in (self.root, *(one.envelope for one in self.holders)):
            if base64.b64encode(base64.b64decode(text, validate=True)).decode() != text:
                raise ValueError("base64 in another spelling than the canonical one")
        if len(self.locked_root) != LOCKED_BYTES:
            raise ValueError("the locked root has another length")
        return self

    @property
    def locked_root(self) -> bytes:
        """The root under its lock."""
        return base64.b64decode(self.root)

    @property
    def names(self) -> list[str]:
        """Who holds a share, by name."""
        return [one.holder for one in self.holders]

    def of(self, holder: str) -> ShareHolder | None:
        """What stands under a name."""
        return next((one for one in self.holders if one.holder == holder), None)
