"""Names that cross a process: task queues, workflow types and IDs, updates and queries, activities.

A name never carries a secret and is never built by hand elsewhere.
"""

from __future__ import annotations

QUEUE_RELEASES = "releases"
QUEUE_TRANSFER = "transfer"
QUEUE_CUSTODY = "custody"
QUEUE_LEAKS = "leaks"
QUEUE_COPIES = "copies"
QUEUES = (QUEUE_RELEASES, QUEUE_TRANSFER, QUEUE_CUSTODY, QUEUE_LEAKS, QUEUE_COPIES)

RELEASE_WORKFLOW = "ReleaseWorkflow"
INGEST_WORKFLOW = "IngestWorkflow"
ROTATION_WORKFLOW = "RotationWorkflow"
HUB_SWEEP_WORKFLOW = "HubSweepWorkflow"
LEAK_SWEEP_WORKFLOW = "LeakSweepWorkflow"
LEAK_CHECK_WORKFLOW = "LeakCheckWorkflow"
LEAK_PREPARE_WORKFLOW = "LeakPrepareWorkflow"
LEAK_TRACE_WORKFLOW = "LeakTraceWorkflow"

UPDATE_COMMAND = "command"
UPDATE_CREATED = "created"
QUERY_STATE = "state"
QUERY_STUCK = "stuck"
SIGNAL_LOOK = "look"
"""Wakes a release: it looks whether anything is due, and whether it is to move to another build."""

RECORD_EVENTS = "record_events"
OBSERVE_PARTNERS = "observe_partners"
PUBLISH_STEP = "publish_step"
APPLY_ACCESS = "apply_access"
MAKE_ENVELOPES = "make_envelopes"
TAKE_IN_ROOT = "take_in_root"
SEAL_TREE = "seal_tree"
BIND_ARTIFACT = "bind_artifact"
SWEEP_HUB = "sweep_hub"
PLAN_SWEEP = "plan_leak_sweep"
POLL_SOURCE = "poll_leak_source"
TELL_MONITORS = "tell_leak_monitors"
SORT_SUSPECTS = "sort_suspects"
SCAN_SUSPECT = "scan_suspect"
GIVE_UP_SUSPECT = "give_up_suspect"
REPORT_SIGHTINGS = "report_sightings"
SIGN_PARENT = "sign_parent"
DIGEST_SEALED = "digest_sealed"
COMPARE_WHOLE = "compare_whole_suspect"
TAKE_SAMPLE = "take_leak_sample"
TRACE_SUSPECT = "trace_suspect"
TELL_TRACE = "tell_trace"
DROP_SAMPLE = "drop_leak_sample"
MAKE_COPIES = "make_copies"
RESEAL_ARTIFACT = "reseal_artifact"
RENEW_ENVELOPES = "renew_envelopes"
DELETE_SEALED = "delete_sealed"
TELL_RELEASE = "tell_release"

HUB_SCHEDULE_ID = "hub-sweep"
"""The ID of the schedule of Hub sweeps, and what its sweeps' workflow IDs begin with."""


WAITS_FOR_CLOCK = "custody-waits"
"""Error type: nothing but custody's own clock stands against a key. The second detail: seconds until it is met, or None."""

WAITS_FOR_LOCK = "second-lock-pending"
"""Error type: a control group has to approve the unwrap first."""


def release_workflow_id(release: str) -> str:
    """The workflow ID of a release."""
    return f"release:{release}"


def leak_schedule_id(release: str) -> str:
    """The ID of the schedule that sweeps for a release, and what its sweeps' workflow IDs begin with."""
    return f"leaks:{release}"


def rotation_workflow_id(release: str, rotation: str) -> str:
    """The workflow ID of one rotation of keys: starting it twice is starting it once."""
    return f"rotation:{release}:{rotation}"


def leak_prepare_workflow_id(what: str, name: str) -> str:
    """The workflow ID of a preparation: wanted by several sweeps, it is one."""
    return f"leak-{what}:{name}"


def leak_check_workflow_id(check: str) -> str:
    """The workflow ID of a whole-file check: asked for twice while it runs, it is one."""
    return f"leak-check:{check}"


def leak_trace_workflow_id(release: str, incident: str, component: str) -> str:
    """The workflow ID of a trace: one incident's suspect is traced once."""
    return f"leak-trace:{release}:{incident}:{component}"


def ingest_workflow_id(ingest: str) -> str:
    """The workflow ID of an ingest: starting it twice is starting it once."""
    return f"ingest:{ingest}"
