"""What a message of notices says, as plain text: names, ids and times. What people wrote stands behind the link."""

from __future__ import annotations

from urllib.parse import quote

from orchestrator.domain.notices import Topic
from orchestrator.records.notices import Batch, Item

_TITLE = 150


def title(batch: Batch) -> str:
    """One line, without line breaks."""
    first = batch.items[0]
    if len(batch.items) == 1:
        told = first.notice.title if first.release is None else f"{first.release}: {first.notice.title}"
    else:
        releases = list(dict.fromkeys(item.release for item in batch.items if item.release is not None))
        more = f" and {len(releases) - 3} more" if len(releases) > 3 else ""
        told = f"{len(batch.items)} notices about {', '.join(releases[:3])}{more}"
    printable = "".join(c if c.isprintable() else "?" for c in f"[sluice] {told}")
    return printable if len(printable) <= _TITLE else f"{printable[: _TITLE - 1]}…"


def text(batch: Batch, public_url: str) -> str:
    """The message below the title."""
    parts = [_item(item, public_url) for item in batch.items]
    channel = f"Sent to channel {batch.channel}. To hear less: sluice notices topics {batch.channel} …"
    return "\n".join([*parts, "--", channel, ""])


def _item(item: Item, public_url: str) -> str:
    at = item.at.strftime("%Y-%m-%d %H:%M:%S UTC")
    by = f" · by {item.by}" if item.by else ""
    lines = [f"{item.number} · {at}{by}", f"{item.release or 'sluice'}: {item.notice.title}"]
    lines += [f"  {name}: {value}" for name, value in item.notice.facts if value]
    if item.release is not None and item.notice.topic is not Topic.GRANTS:
        lines.append(f"  {public_url}/console/releases/{quote(item.release)}")
    return "\n".join(lines) + "\n"
