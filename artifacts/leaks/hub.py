"""A repository of the Hugging Face Hub as a scan's target: one listing, then ranges of the files that matter.

The listing names SHA-256, Xet hash and size of every large file, so tier 0 downloads nothing.
"""

from __future__ import annotations

import re
from typing import Any

import rfc8785

from artifacts.errors import StoreError
from artifacts.leaks.asking import Asker, hub_requests
from artifacts.leaks.errors import BudgetError, SourceFailure, UnreadableError, shown
from artifacts.leaks.matching import ListedFile
from artifacts.leaks.ranged import AddressPolicy, GuardedClient, HttpSource
from artifacts.leaks.sources import Budget, ByteSource, Ledger
from artifacts.leaks.targets import HubOptions, Target, TargetFile

_TARGET = re.compile(
    r"^hf:(?:(models|datasets|spaces)/)?([\w.-]{1,96}/[\w.-]{1,96}|[\w.-]{1,96})(?:@([\w./-]{1,200}))?$",
    re.ASCII,
)
MAX_LISTING = 64 << 20
_KINDS = {None: "model", "models": "model", "datasets": "dataset", "spaces": "space"}
_PREFIX = {"model": "", "dataset": "datasets/", "space": "spaces/"}


def open_repository(
    target: str, budget: Budget, ledger: Ledger, addresses: AddressPolicy, hub: HubOptions, max_files: int
) -> Target:
    """List a repository at a revision, pinned to its commit.

    Args:
        target: `hf:[datasets/|spaces/]owner/name[@revision]`.
        budget: of the scan; every page of the listing counts as a request, the listed rows as bytes.
        ledger: of the scan.
        addresses: for the files' ranges.
        hub: endpoint and token.
        max_files: entries looked at; more are left out, with a note.

    Raises:
        UnreadableError: if it is not there, gated, or the Hub does not answer.
    """
    match = _TARGET.match(target)
    if match is None:
        raise UnreadableError(f"{shown(target)}: not of the form hf:owner/name[@revision]")
    kind, repository, revision = _KINDS[match[1]], match[2], match[3] or "main"
    client = GuardedClient(addresses, budget.max_wait)
    try:
        commit, rows, more = _list(kind, repository, revision, hub, budget, addresses, max_files)
    except BaseException:
        client.close()
        raise
    label = f"hf:{_PREFIX[kind]}{repository}@{commit}"
    ledger.record(f"{label} (listing)", None, rfc8785.dumps(rows))
    files = []
    for row in rows:
        path = row["path"]
        location = shown(f"{label}/{path}", 400)
        listed = ListedFile(location, row["size"], sha256=row["sha256"], xet_hash=row["xet_hash"])
        url = _resolve_url(hub.endpoint, kind, repository, commit, path)
        files.append(TargetFile(location, listed, _opener(url, client, budget, ledger, hub)))
    notes = [f"only the first {max_files} files of the repository were listed"] if more else []
    return Target(label, files, notes=notes, closers=[client.close])


def _opener(url: str, client: GuardedClient, budget: Budget, ledger: Ledger, hub: HubOptions) -> Any:
    def open_it() -> ByteSource:
        headers = {"Authorization": f"Bearer {hub.token}"} if hub.token else {}
        return HttpSource(url, client, budget, ledger, headers)

    return open_it


def _resolve_url(endpoint: str, kind: str, repository: str, commit: str, path: str) -> str:
    from huggingface_hub import hf_hub_url

    return str(hf_hub_url(repository, path, repo_type=kind, revision=commit, endpoint=endpoint))


def _list(
    kind: str,
    repository: str,
    revision: str,
    hub: HubOptions,
    budget: Budget,
    addresses: AddressPolicy,
    max_files: int,
) -> tuple[str, list[dict[str, Any]], bool]:
    """Commit, file rows, and whether there are more rows than were taken."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi(endpoint=hub.endpoint, token=hub.token or False)
    rows: list[dict[str, Any]] = []
    # A listing has an allowance of its own; its requests count in the scan.
    allowance = Budget(MAX_LISTING, budget.max_requests, max(0.0, budget.seconds_left), budget.max_wait)
    asker = Asker(addresses, allowance, on_answer=lambda _: budget.reserve(0))
    try:
        with asker, hub_requests(asker):
            info = api.repo_info(repository, repo_type=kind, revision=revision, timeout=10)
            commit = str(info.sha)
            tree = api.list_repo_tree(repository, recursive=True, revision=commit, repo_type=kind)
            seen: set[str] = set()
            for entry in tree:
                row = tree_row(entry)
                if row is None:
                    continue
                if row["path"] in seen:
                    raise SourceFailure(f"{shown(repository)}: the listing repeats itself and does not end")
                seen.add(row["path"])
                if len(rows) >= max_files:
                    return commit, rows, True
                rows.append(row)
    except BudgetError:
        if not rows:
            raise
        return commit, rows, True
    except (
        HfHubHTTPError,
        HFValidationError,
        StoreError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
    ) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        said = f"status {status}" if status else type(error).__name__
        raise SourceFailure(f"{shown(repository)}: the Hub's listing failed: {said}") from error
    return commit, rows, False


def tree_row(entry: Any) -> dict[str, Any] | None:
    """A file of the Hub's tree listing as plain data; None for a folder."""
    size = getattr(entry, "size", None)
    if not isinstance(size, int):
        return None
    lfs = getattr(entry, "lfs", None)
    return {
        "path": str(entry.path),
        "size": size,
        "sha256": str(lfs.sha256) if lfs is not None else None,
        "xet_hash": getattr(entry, "xet_hash", None),
        "git_oid": getattr(entry, "blob_id", None),
    }
