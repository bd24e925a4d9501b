"""The supervisor, with small programs as components: each listens on its port and says its process id."""

import asyncio
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from contextlib import closing
from pathlib import Path

import pytest

from infra import supervisor
from infra.processes import ProcessIdentity, end_all, free_port, identify, port_is_free
from infra.settings import Settings
from infra.stack_state import (
    AlreadyRunningError,
    PortTakenError,
    StackError,
    StackState,
    StartError,
    is_locked,
    read_state,
    run_folder,
    write_state,
)
from infra.supervised import Component
from infra.supervisor import Stack

pytestmark = pytest.mark.stack

SERVER = """
import os, signal, socket, sys, time
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("listening", flush=True)
while True:
    peer, _ = server.accept()
    peer.sendall(str(os.getpid()).encode())
    peer.close()
"""


def said(port):
    with closing(socket.create_connection(("127.0.0.1", port), timeout=2)) as peer:
        return int(peer.recv(20))


def server(name, *words, wish=0, **more):
    async def ready(site):
        return await asyncio.to_thread(said, site.ports[name]) > 0

    return Component(
        name=name,
        command=lambda site: [sys.executable, "-I", "-S", "-c", SERVER, str(site.ports[name]), *words],
        ready=ready,
        ports={name: wish},
        **more,
    )


def program(name, text, **more):
    return Component(
        name=name, command=lambda _site: [sys.executable, "-I", "-S", "-c", textwrap.dedent(text)], **more
    )


def started(text, *arguments, **more):
    return subprocess.Popen([sys.executable, "-I", "-S", "-c", text, *arguments], **more)


async def never(_site):
    raise ConnectionError("nobody there")


@pytest.fixture
def settings(tmp_path):
    return Settings(dev=True, data_dir=tmp_path / "data")


async def until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.02)


async def test_everything_runs_inside_and_nothing_is_left_outside(settings):
    async with Stack(settings, [server("a"), server("b", after=("a",))]) as stack:
        pids = [stack.pid("a"), stack.pid("b")]
        assert [said(stack.site.ports[name]) for name in "ab"] == pids
        assert stack.state.phase == "ready"
        assert is_locked(settings.data_dir)
    assert [identify(pid) for pid in pids] == [None, None]
    assert read_state(settings.data_dir) is None
    assert not is_locked(settings.data_dir)


async def test_a_killed_component_is_restarted_on_its_port_and_counted(settings):
    async with Stack(settings, [server("a"), server("b")]) as stack:
        before, neighbour = stack.pid("a"), stack.pid("b")
        os.kill(before, signal.SIGKILL)
        await until(lambda: stack.state.processes[0].restarts == 1)
        await stack.wait_ready()
        assert said(stack.site.ports["a"]) == stack.pid("a") != before
        assert stack.pid("b") == neighbour
        assert "SIGKILL" not in stack.state.processes[0].note, (
            "an old reason is not shown for a process that runs"
        )


async def test_a_killed_component_is_restarted_though_the_disk_is_full(settings, monkeypatch):
    async with Stack(settings, [server("a")]) as stack:
        before = stack.pid("a")
        with monkeypatch.context() as full:

            def no_room(*_):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            full.setattr(supervisor, "write_state", no_room)
            log_file = stack.log_path("a")
            opened = Path.open

            def open_some(path, *words, **more):
                return no_room() if path == log_file else opened(path, *words, **more)

            full.setattr(Path, "open", open_some)
            await stack.kill("a")
            await stack.wait_ready(timeout=60)
        assert stack.pid("a") not in {None, before}


async def test_killing_on_purpose_is_not_counted_as_failing(settings):
    async with Stack(settings, [server("a")]) as stack:
        for _ in range(12):
            killed = await stack.kill("a")
            await stack.wait_ready("a")
            assert stack.pid("a") != killed
        assert stack.state.phase == "ready"


async def test_a_restart_waits_for_the_successor(settings):
    async with Stack(settings, [server("a")]) as stack:
        before = stack.pid("a")
        await stack.restart("a")
        assert said(stack.site.ports["a"]) == stack.pid("a") != before


async def test_a_component_that_ignores_sigterm_is_killed(settings):
    async with Stack(settings, [server("a", "stubborn", stop_seconds=0.3)]) as stack:
        pid = stack.pid("a")
    assert identify(pid) is None


async def test_a_component_that_never_comes_up_is_an_error_with_its_last_words(settings):
    broken = program("broken", "raise SystemExit('the disk is on fire')", ready=never)
    with pytest.raises(StartError, match=r"broken failed: ended with exit code 1(.|\n)*the disk is on fire"):
        async with Stack(settings, [broken, server("a")]):
            pass
    assert not is_locked(settings.data_dir)


async def test_a_component_that_keeps_dying_fails_after_a_limit(settings, monkeypatch):
    monkeypatch.setattr("infra.supervisor.RESTARTS", 3)
    async with Stack(settings, [server("a")]) as stack:
        for _ in range(2):
            os.kill(stack.pid("a"), signal.SIGKILL)
            count = stack.state.processes[0].restarts
            await until(lambda count=count: stack.state.processes[0].restarts > count)
            await stack.wait_ready("a")
        os.kill(stack.pid("a"), signal.SIGKILL)
        assert "a failed: ended with signal SIGKILL; 3 times" in await asyncio.wait_for(
            stack.wait_failed(), 5
        )
        assert read_state(settings.data_dir).phase == "failed"


async def test_a_component_that_runs_but_never_answers_is_an_error(settings):
    mute = program("mute", "import time; time.sleep(60)", ready=never, start_seconds=0.3)
    with pytest.raises(StartError, match=r"mute failed: not ready after 0\.3 s"):
        async with Stack(settings, [mute]):
            pass


async def test_work_that_is_done_once_comes_before_what_waits_for_it(settings, tmp_path):
    once = program(
        "migrate", f"import time; time.sleep(0.3); open({str(tmp_path / 'done')!r}, 'w').close()", once=True
    )
    then = program(
        "then",
        f"import os, time; assert os.path.exists({str(tmp_path / 'done')!r}); time.sleep(60)",
        after=("migrate",),
    )
    async with Stack(settings, [then, once]) as stack:
        assert {p.name: p.condition for p in stack.state.processes} == {"then": "ready", "migrate": "done"}


async def test_work_that_fails_is_not_tried_again(settings):
    with pytest.raises(StartError, match=r"migrate failed: ended with exit code 3; 1 times"):
        async with Stack(settings, [program("migrate", "raise SystemExit(3)", once=True)]):
            pass


async def test_a_second_stack_on_the_same_folder_is_refused_with_who_runs(settings):
    async with Stack(settings, [server("a")], urls=lambda _site: {"api": "http://127.0.0.1:1"}) as stack:
        with pytest.raises(
            AlreadyRunningError, match=rf"process {os.getpid()}.*http://127.0.0.1:1.*sluice down"
        ):
            async with Stack(settings, [server("a")]):
                pass
        assert said(stack.site.ports["a"]) == stack.pid("a"), "the first one goes on"


async def test_two_stacks_on_two_folders_run_side_by_side(settings, tmp_path):
    other = Settings(dev=True, data_dir=tmp_path / "other")
    async with Stack(settings, [server("a")]) as one, Stack(other, [server("a")]) as two:
        assert one.site.ports["a"] != two.site.ports["a"]


async def test_a_wished_port_that_is_taken_is_an_error_that_names_it(settings):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert not port_is_free(port)
        with pytest.raises(PortTakenError, match=rf"port {port}, wished for a of a, is taken"):
            async with Stack(settings, [server("a", wish=port)], any_port=False):
                pass


async def test_a_wished_port_that_is_free_is_used(settings):
    port = free_port()
    async with Stack(settings, [server("a", wish=port)], any_port=False) as stack:
        assert said(port) == stack.pid("a")


async def test_names_that_clash_or_wait_for_nobody_are_refused(settings):
    with pytest.raises(StackError, match="names of their own"):
        Stack(settings, [server("a"), server("a")])
    with pytest.raises(StackError, match="wait for one another"):
        Stack(settings, [server("a", after=("b",))])
    async with Stack(settings, [server("a")]) as stack:
        with pytest.raises(StackError, match="no component 'c'; there are: a"):
            await stack.kill("c")


def test_an_identity_outlives_no_process_and_fits_no_other():
    with started("input()", stdin=subprocess.PIPE) as process:
        identity = identify(process.pid)
        assert identity.alive
        assert not ProcessIdentity(pid=process.pid, started="another-boot/1").alive
        process.stdin.close()
    assert not identity.alive


async def test_a_stranger_with_a_recorded_number_is_never_signalled(settings):
    with started("input()", stdin=subprocess.PIPE) as stranger:
        _leave_behind(settings, ProcessIdentity(pid=stranger.pid, started="before-the-power-cut/7"))
        async with Stack(settings, [server("a")]) as stack:
            assert stack.state.phase == "ready"
        assert stranger.poll() is None
        stranger.stdin.close()


async def test_what_a_dead_supervisor_left_running_is_ended_first(settings):
    port = free_port()
    leftover = started(SERVER, str(port))
    await until(lambda: not port_is_free(port))
    _leave_behind(settings, identify(leftover.pid))
    async with Stack(settings, [server("a", wish=port)], any_port=False) as stack:
        assert said(port) == stack.pid("a") != leftover.pid
    assert leftover.wait(5) == -signal.SIGTERM


def _leave_behind(settings, identity):
    gone = ProcessIdentity(pid=1, started="gone")
    run_folder(settings.data_dir).mkdir(parents=True)
    process = {"name": "a", "condition": "ready", "process": identity, "log": settings.data_dir / "a.log"}
    state = {"phase": "ready", "supervisor": gone, "since": "2026-01-01T00:00:00Z", "processes": [process]}
    write_state(settings.data_dir, StackState.model_validate(state))


@pytest.mark.parametrize("content", [b"", b"{", b"\x00" * 64, b'{"phase": "ready"}'])
async def test_a_torn_state_file_is_no_obstacle(settings, content):
    run_folder(settings.data_dir).mkdir(parents=True)
    (run_folder(settings.data_dir) / "stack.json").write_bytes(content)
    (run_folder(settings.data_dir) / "stack.lock").write_bytes(b"")
    async with Stack(settings, [server("a")]) as stack:
        assert stack.state.phase == "ready"


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_components_end_with_a_supervisor_that_is_killed(tmp_path):
    script = textwrap.dedent(f"""
        import asyncio, sys
        sys.path.insert(0, {str(Path.cwd())!r})
        from infra.settings import Settings
        from infra.supervisor import Stack
        from tests.infra.test_supervisor import server

        async def main():
            async with Stack(Settings(dev=True, data_dir={str(tmp_path)!r}), [server("a")]) as stack:
                print(stack.pid("a"), flush=True)
                await asyncio.sleep(60)

        import logging, structlog
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
        asyncio.run(main())
    """)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as supervisor:
        child = identify(int(supervisor.stdout.readline()))
        assert child.alive
        supervisor.kill()
    deadline = time.monotonic() + 5
    while child.alive:
        assert time.monotonic() < deadline, "it outlived its supervisor"
        time.sleep(0.02)


def test_the_state_on_disk_is_json_that_a_person_can_read(settings):
    run_folder(settings.data_dir).mkdir(parents=True)
    _state = StackState(
        phase="failed", supervisor=identify(os.getpid()), since="2026-01-01T00:00:00Z", error="why"
    )
    write_state(settings.data_dir, _state)
    assert json.loads((run_folder(settings.data_dir) / "stack.json").read_text())["error"] == "why"
    assert read_state(settings.data_dir) == _state


def test_ending_takes_only_what_runs():
    assert end_all([ProcessIdentity(pid=1, started="another-boot/1")], patience=0.1) == []
