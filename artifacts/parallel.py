"""Runs the parts of files on a few threads, in order of submission, with bounded work in flight."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Protocol

from artifacts.digests import Aborted


class PartJob(Protocol):
    """A file in transfer."""

    def run_part(self, index: int) -> None:
        """Do one part; called from a worker thread."""
        ...

    def stop(self) -> None:
        """Another part failed: wake up threads that wait for a turn."""
        ...


def run_parts(jobs: Iterable[tuple[PartJob, int]], workers: int) -> None:
    """Run every (file, part index). Parts of a file must come in order, or those that wait for a turn never get it.

    The first error is raised after all threads have stopped; `jobs` is consumed lazily, two parts ahead of each worker.
    """
    running: dict[Future[None], PartJob] = {}
    failure: BaseException | None = None

    def collect(*, everything: bool) -> None:
        nonlocal failure
        done, _ = wait(running, return_when="ALL_COMPLETED" if everything else FIRST_COMPLETED)
        for future in done:
            running.pop(future)
            error = None if future.cancelled() else future.exception()
            if error is not None and (failure is None or isinstance(failure, Aborted)):
                failure = error

    with ThreadPoolExecutor(workers, thread_name_prefix="parts") as pool:
        try:
            for job, index in jobs:
                running[pool.submit(job.run_part, index)] = job
                if len(running) >= 2 * workers:
                    collect(everything=False)
                if failure is not None:
                    break
            while running and failure is None:
                collect(everything=False)
        except BaseException as error:  # noqa: BLE001 - raised again below, once the threads have stopped
            failure = error
        if running:
            for future, job in running.items():
                future.cancel()
                job.stop()
            collect(everything=True)
    if failure is not None:
        raise failure
