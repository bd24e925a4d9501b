"""Starts a program so that it ends with its parent, or so that it outlives it.

    python -I -S launch.py PARENT PROGRAM ARGUMENT…    ends with the process PARENT
    python -I -S launch.py PARENT:UID:GID PROGRAM …    as that user (PostgreSQL does not run as root)
    python -I -S launch.py detach PROGRAM ARGUMENT…    in a session of its own; prints its process id and leaves it

A supervisor that is killed leaves no server behind: the kernel sends SIGTERM to what it had started (Linux; elsewhere the next start
finds and ends the leftovers). Runs without site-packages, so that it costs some 15 ms.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Become the program, bound to the parent or on its own."""
    program = sys.argv[2:]
    if sys.argv[1] == "detach":
        _detach()
    else:
        parent, *user = map(int, sys.argv[1].split(":"))
        if user:
            _become(*user)
        _end_with(parent)
    os.execv(program[0], program)  # noqa: S606 - the supervisor's own command line


def _detach() -> None:
    child = os.fork()
    if child:
        print(child, flush=True)
        os._exit(0)
    os.setsid()
    os.dup2(2, 1)  # the caller waits for the end of its pipe


def _become(uid: int, gid: int) -> None:
    """Another user for good; before the kernel is asked to tell of the parent's end, which a change of user undoes."""
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def _end_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it died before the kernel knew whom to tell
        sys.exit(1)


if __name__ == "__main__":
    main()
