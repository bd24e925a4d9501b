"""Names that cross a process: task queues, workflow types and IDs, updates and queries, activities.

A name never carries a secret and is never built by hand elsewhere.
"""

from __future__ import annotations

QUEUE_RELEASES = "releases"
QUEUE_TRANSFER = "transfer"
QUEUE_CUSTODY = "custody"
QUEUES = (QUEUE_RELEASES, QUEUE_TRANSFER, QUEUE_CUSTODY)

RELEASE_WORKFLOW = "ReleaseWorkflow"
INGEST_WORKFLOW = "IngestWorkflow"

UPDATE_COMMAND = "command"
UPDATE_CREATED = "created"
QUERY_STATE = "state"
QUERY_STUCK = "stuck"

RECORD_EVENTS = "record_events"
OBSERVE_PARTNERS = "observe_partners"
PUBLISH_STEP = "publish_step"
APPLY_ACCESS = "apply_access"
MAKE_ENVELOPES = "make_envelopes"
TAKE_IN_ROOT = "take_in_root"
SEAL_TREE = "seal_tree"
BIND_ARTIFACT = "bind_artifact"


def release_workflow_id(release: str) -> str:
    """The workflow ID of a release."""
    return f"release:{release}"


def ingest_workflow_id(ingest: str) -> str:
    """The workflow ID of an ingest: starting it twice is starting it once."""
    return f"ingest:{ingest}"
