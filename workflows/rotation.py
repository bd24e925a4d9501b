"""One rotation of keys: every artifact of it sealed anew by custody, told to the release, and the old files' fate.

It runs beside the release, which goes on meanwhile: holds, revocations and incidents wait for nothing here. What was
sealed anew takes its place artifact by artifact; a failure ends the rotation and is said, it never repeats in silence.
"""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError

from orchestrator.contracts import messages as msg
from orchestrator.contracts import names
from orchestrator.domain import commands as cmd

_HEARTBEAT = timedelta(seconds=20)
#: A store or key service that is away is waited for; what custody refuses is not.
_SEAL_RETRY = RetryPolicy(initial_interval=timedelta(seconds=2), maximum_interval=timedelta(minutes=5))
#: People behind a second lock are waited for; how often custody is asked whether they have approved.
_ASK_AGAIN = timedelta(minutes=2)
_TELL_RETRY = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(minutes=1))
_DELETE_RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=2), maximum_interval=timedelta(minutes=1), maximum_attempts=30
)


@workflow.defn(name=names.ROTATION_WORKFLOW)
class RotationWorkflow:
    """New keys for some artifacts of one release."""

    @workflow.run
    async def run(self, start: msg.RotationInput) -> list[msg.Resealed]:
        """Seal anew, tell, and delete where it was asked; what was sealed."""
        done: list[msg.Resealed] = []
        failed: str | None = None
        for artifact in start.artifacts:
            try:
                made = await self._reseal(start, artifact)
                if made.new is not None and made.manifest_digest is not None and made.location is not None:
                    await self._tell(
                        start,
                        cmd.CompleteResealing(
                            command_id=f"resealed-{start.rotation}-{artifact}",
                            actor=cmd.SERVICE,
                            rotation=start.rotation,
                            artifact=artifact,
                            new=made.new,
                            manifest_digest=made.manifest_digest,
                            location=made.location,
                            size=made.size,
                        ),
                    )
                    done.append(made)
            except ActivityError as error:
                failed = _told(error)
                break
        end = cmd.EndRotation(
            command_id=f"ended-{start.rotation}", actor=cmd.SERVICE, rotation=start.rotation, failed=failed
        )
        try:
            await self._tell(start, end)
            if start.delete_old:
                for made in done:
                    await self._delete(start, made.artifact)
        except ActivityError as error:
            # the release has ended, or its store deletes nothing: the state shows that the old files are still there
            workflow.logger.warning("a rotation could not be finished", extra={"why": _told(error)})
        return done

    async def _reseal(self, start: msg.RotationInput, artifact: str) -> msg.Resealed:
        """Seal one artifact anew. Where a second lock guards its key, this waits for the people; custody has told the log whom."""
        while True:
            try:
                return await self._resealed(start, artifact)
            except ActivityError as error:
                waits = isinstance(error.cause, ApplicationError) and error.cause.type == names.WAITS_FOR_LOCK
                if not waits or not workflow.patched("rotations-wait"):
                    raise
                await workflow.sleep(_ASK_AGAIN)

    async def _resealed(self, start: msg.RotationInput, artifact: str) -> msg.Resealed:
        made: msg.Resealed = await workflow.execute_activity(
            names.RESEAL_ARTIFACT,
            msg.ResealRequest(release=start.release, rotation=start.rotation, artifact=artifact),
            task_queue=names.QUEUE_COPIES,
            result_type=msg.Resealed,
            start_to_close_timeout=timedelta(days=7),
            heartbeat_timeout=_HEARTBEAT,
            retry_policy=_SEAL_RETRY,
        )
        return made

    async def _tell(self, start: msg.RotationInput, command: cmd.AnyCommand) -> None:
        await workflow.execute_activity(
            names.TELL_RELEASE,
            msg.TellRequest(release=start.release, command=command),
            task_queue=names.QUEUE_TRANSFER,
            result_type=msg.Outcome,
            start_to_close_timeout=timedelta(minutes=1),
            retry_policy=_TELL_RETRY,
        )

    async def _delete(self, start: msg.RotationInput, artifact: str) -> None:
        await workflow.execute_activity(
            names.DELETE_SEALED,
            msg.DeleteRequest(release=start.release, artifact=artifact),
            task_queue=names.QUEUE_TRANSFER,
            result_type=msg.AccessApplied,
            start_to_close_timeout=timedelta(hours=6),
            heartbeat_timeout=_HEARTBEAT,
            retry_policy=_DELETE_RETRY,
        )
        note = cmd.NoteDeletion(command_id=f"deleted-{artifact}", actor=cmd.SERVICE, artifact=artifact)
        await self._tell(start, note)


def _told(error: ActivityError) -> str:
    cause = error.cause
    text = cause.message if isinstance(cause, ApplicationError) else f"{error.activity_type} did not succeed"
    return text[:3900]
