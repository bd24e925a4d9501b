"""What a live Hub does, tried on a branch that is removed again, so that `main` keeps no trace of it."""

from __future__ import annotations

import contextlib
import io
import secrets

from huggingface_hub import CommitOperationAdd
from huggingface_hub.hf_api import RepoFile

from artifacts.errors import AccessDenied, StoreError
from artifacts.stores.base import RESERVED, ObjectInfo, StoreFeatures
from artifacts.stores.hub_calls import HeadMoved, HubCalls
from artifacts.stores.hub_reads import HubReader

_BYTES = b"sluice store probe"
_LACKING = {
    "part_checksums": "parts wait on local disk; the Hub checks the SHA-256 of the whole file",
    "presign": "partners read with their own Hub account, which the repository's gate lets in",
    "object_lock": "members of the organisation can rewrite the repository; its drift is watched instead",
}


def probe(calls: HubCalls, revision: str) -> StoreFeatures:
    """Ask the live Hub: does it refuse a commit on an old parent, keep versions, and answer ranges?

    Raises:
        AccessDenied: the repository is missing or hidden. StoreUnavailable: the Hub does not answer.
    """
    head = str(calls.run("probe", lambda: calls.api.model_info(calls.repo_id, revision=revision)).sha)
    branch, path = f"sluice-probe-{secrets.token_hex(6)}", f"{RESERVED}/probe"

    def commit(data: bytes) -> str:
        made = calls.api.create_commit(
            calls.repo_id,
            [CommitOperationAdd(path, io.BytesIO(data))],
            commit_message="Try what this Hub does",
            revision=branch,
            parent_commit=head,
        )
        return str(made.oid)

    try:
        calls.run("probe", lambda: calls.api.create_branch(calls.repo_id, branch=branch, revision=head))
    except AccessDenied:
        reason = "this token may not write here, so it could not be tried"
        wanted = ("conditional_create", "resume", "versioning")
        return StoreFeatures(range_reads=True, lacking=_LACKING | dict.fromkeys(wanted, reason))
    try:
        oid = calls.once(calls.where, lambda: commit(_BYTES))
        lacking = dict(_LACKING)
        conditional = False
        try:
            calls.once(calls.where, lambda: commit(b"other bytes"))
            lacking["conditional_create"] = "a commit on an old parent was accepted, so writers can race"
        except HeadMoved:
            conditional = True
        items = calls.run("probe", lambda: calls.api.get_paths_info(calls.repo_id, path, revision=oid))
        found = next(item for item in items if isinstance(item, RepoFile))
        reader = HubReader(calls, oid)
        try:
            seen = ObjectInfo(path, found.size, found.lfs.sha256 if found.lfs else found.blob_id)
            ranges = reader.read(seen, 7, 5) == _BYTES[7:12]
        except StoreError:
            ranges = False
        finally:
            reader.close()
        if not ranges:
            lacking["range_reads"] = "a range was answered with something else"
        return StoreFeatures(
            conditional_create=conditional,
            resume=True,
            versioning=found.size == len(_BYTES),
            range_reads=ranges,
            lacking=lacking,
        )
    finally:
        with contextlib.suppress(StoreError):
            calls.run("probe", lambda: calls.api.delete_branch(calls.repo_id, branch=branch))
