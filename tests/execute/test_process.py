"""One command from its start to its end, with real children at both levels of containment."""

from __future__ import annotations

import errno
import hashlib
import hmac
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from govrun.digest import field_salt
from govrun.errors import ExitCode, GovrunError
from govrun.execute import family
from govrun.execute.process import Interrupt, Watch
from tests.execute.children import DAEMON, a_plan, go, python, shell, until, with_word

# -- how it ended -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 3, 127, 255])
def test_the_exit_code_comes_through(level: str, code: int) -> None:
    captured = go(shell(f"exit {code}"), isolation=level)
    assert ("exited", code, None) == (captured.ended, captured.exit_code, captured.signal)
    assert captured.containment.level == level
    assert captured.containment.leftovers == 0


def test_death_by_a_signal_is_told_as_such() -> None:
    captured = go(shell("kill -SEGV $$"), isolation="group")
    assert ("signalled", None, signal.SIGSEGV) == (captured.ended, captured.exit_code, captured.signal)


def test_bubblewrap_tells_a_signal_as_128_and_the_signal(bubblewrap: None) -> None:
    died = go(shell("kill -SEGV $$"), isolation="pidNamespace")
    returned = go(shell("exit 139"), isolation="pidNamespace")
    assert ("exited", 139, None) == (died.ended, died.exit_code, died.signal)
    assert (died.ended, died.exit_code, died.signal) == (returned.ended, returned.exit_code, returned.signal)


def test_a_child_that_hangs_is_ended_at_the_wall_limit(level: str, nap: str) -> None:
    captured = go(shell(f"sleep {nap}; exit 3"), isolation=level, wall_ms=150)
    assert ("wallLimit", None, signal.SIGTERM) == (captured.ended, captured.exit_code, captured.signal)
    assert captured.duration_ms >= 150


def test_a_child_may_use_its_grace_to_end_well(level: str, nap: str) -> None:
    program = "import signal, sys, time\nsignal.signal(15, lambda *_: (print('bye'), sys.exit(7)))\ntime.sleep(60)"
    captured = go(python(program, nap), isolation=level, wall_ms=250, grace_ms=3000)
    assert ("wallLimit", 7, b"bye\n") == (captured.ended, captured.exit_code, captured.stdout.data)


def test_a_child_that_ignores_sigterm_is_killed_after_its_grace(level: str, nap: str) -> None:
    program = "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint('deaf', flush=True)\ntime.sleep(60)"
    captured = go(python(program, nap), isolation=level, wall_ms=300, grace_ms=200)
    assert ("wallLimit", None, signal.SIGKILL) == (captured.ended, captured.exit_code, captured.signal)
    assert captured.stdout.data == b"deaf\n"
    assert captured.duration_ms >= 500


def test_a_stopped_child_is_killed_too(level: str) -> None:
    assert go(shell("kill -STOP $$"), isolation=level, wall_ms=100, grace_ms=50).ended == "wallLimit"


def test_without_grace_the_kill_follows_at_once(level: str, nap: str) -> None:
    captured = go(shell(f"trap '' TERM; sleep {nap}"), isolation=level, wall_ms=100, grace_ms=0)
    assert captured.ended == "wallLimit"


# -- what it wrote ------------------------------------------------------------------------------------------------


def test_both_streams_are_kept_byte_for_byte(level: str) -> None:
    captured = go(shell(r"printf 'a\377\000b'; printf 'c\200' >&2"), isolation=level)
    assert (b"a\xff\x00b", 4, False) == (captured.stdout.data, captured.stdout.size, captured.stdout.truncated)
    assert (b"c\x80", 2, False) == (captured.stderr.data, captured.stderr.size, captured.stderr.truncated)


def test_the_commitment_is_plain_without_a_salt_and_keyed_with_one() -> None:
    salt = bytes(range(32))
    plain = go(shell("printf text; printf text >&2"), isolation="group")
    salted = go(shell("printf text; printf text >&2"), isolation="group", salt=salt)
    assert plain.stdout.commitment == plain.stderr.commitment == hashlib.sha256(b"text").hexdigest()
    assert salted.stdout.commitment == hmac.new(field_salt(salt, "stdout"), b"text", "sha256").hexdigest()
    assert salted.stderr.commitment == hmac.new(field_salt(salt, "stderr"), b"text", "sha256").hexdigest()


def test_a_stream_of_exactly_the_limit_is_whole(level: str) -> None:
    captured = go(shell("printf 12345"), isolation=level, stdout_bytes=5)
    assert ("exited", b"12345", 5, False) == (
        captured.ended,
        captured.stdout.data,
        captured.stdout.size,
        captured.stdout.truncated,
    )


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_one_byte_beyond_the_limit_ends_the_run(level: str, stream: str) -> None:
    captured = go(shell("printf 123456; printf 123456 >&2"), isolation=level, **{f"{stream}_bytes": 5})
    flooded = getattr(captured, stream)
    assert ("outputLimit", b"12345", 6, True) == (captured.ended, flooded.data, flooded.size, flooded.truncated)


def test_many_small_writes_count_together(level: str, nap: str) -> None:
    captured = go(
        shell(f"for n in 1 2 3 4; do printf 123; sleep 0.01; done; sleep {nap}"), isolation=level, stdout_bytes=10
    )
    assert ("outputLimit", b"1231231231", True) == (captured.ended, captured.stdout.data, captured.stdout.truncated)


def test_a_flood_is_cut_and_memory_stays_flat(level: str) -> None:
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    program = "import os\nfor _ in range(1024): os.write(1, bytes(1 << 20))"
    captured = go(python(program), isolation=level, stdout_bytes=8 << 20)
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb
    assert ("outputLimit", 8 << 20) == (captured.ended, len(captured.stdout.data))
    assert captured.stdout.size <= (8 << 20) + 65_536
    assert grown_kb < 40_960


def test_stderr_is_passed_on_while_it_comes_and_no_further_than_its_limit(level: str, nap: str) -> None:
    parts: list[bytes] = []
    with Interrupt() as interrupt:

        def first_words(part: bytes) -> None:
            parts.append(part)
            interrupt.request(signal.SIGINT)

        captured = go(
            shell(f"echo 123456789 >&2; sleep {nap}"),
            watch=Watch(on_stderr=first_words, interrupt=interrupt),
            isolation=level,
            stderr_bytes=10,
        )
    assert captured.ended == "interrupted"
    assert b"".join(parts) == b"123456789\n"


def test_a_child_that_speaks_like_bubblewrap_is_heard(level: str) -> None:
    parts: list[bytes] = []
    captured = go(shell("echo bwrap: not me >&2"), watch=Watch(on_stderr=parts.append), isolation=level)
    assert b"".join(parts) == captured.stderr.data == b"bwrap: not me\n"


def test_a_watcher_that_fails_leaves_nothing_behind(level: str, nap: str) -> None:
    def fail(_: bytes) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(shell(f"echo x >&2; sleep {nap}"), watch=Watch(on_stderr=fail), isolation=level)
    assert with_word(nap) == []


# -- what it was given --------------------------------------------------------------------------------------------


def test_standard_input_is_at_its_end(level: str) -> None:
    captured = go(shell("cat; readlink /proc/self/fd/0"), isolation=level)
    assert captured.stdout.data == b"/dev/null\n"


def test_the_child_sees_the_given_environment_and_no_other(level: str) -> None:
    program = "import os\nprint(sorted((k, v) for k, v in os.environb.items()))"
    environment = (("LC_ALL", "C"), ("NAME", "välue"), ("PWD", "/"))
    captured = go(python(program, environment=environment), isolation=level)
    assert captured.stdout.data.decode() == f"{[(k.encode(), v.encode()) for k, v in environment]}\n"


def test_bubblewrap_adds_the_working_directory_to_the_environment(bubblewrap: None) -> None:
    assert go(a_plan("/usr/bin/env", environment=()), isolation="group").stdout.data == b""
    assert go(a_plan("/usr/bin/env", environment=()), isolation="pidNamespace").stdout.data == b"PWD=/\n"


def test_the_child_has_three_descriptors_and_the_planned_ones(level: str) -> None:
    inheritable = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(inheritable, True)
    program = "import os\nseen = os.listdir('/proc/self/fd')\nprint(sorted(map(int, seen))[:-1] + [len(seen)])"
    try:
        bare = go(python(program), isolation=level)
        planned = go(python(program, descriptors=((64, b"x"), (70, b"y"))), isolation=level)
    finally:
        os.close(inheritable)
    # The listing's own descriptor is 3, and in the second case not the last.
    assert bare.stdout.data == b"[0, 1, 2, 4]\n"
    assert planned.stdout.data == b"[0, 1, 2, 3, 64, 6]\n"


def test_a_planned_descriptor_reads_from_the_start_each_time_it_is_opened(level: str) -> None:
    content = bytes(range(256)) * 1024
    program = (
        "import shutil, sys\n"
        "for source in ('/dev/fd/64', '/dev/fd/64', 64):\n"
        "    shutil.copyfileobj(open(source, 'rb'), sys.stdout.buffer)"
    )
    plan = python(program, descriptors=((64, content), (65, b"")))
    assert go(plan, isolation=level).stdout.data == content * 3


def test_a_planned_descriptor_cannot_be_changed(level: str) -> None:
    program = """
import os
for act in (lambda: os.pwrite(64, b"no", 0), lambda: os.truncate(64, 0), lambda: os.truncate(64, 9)):
    try: act()
    except OSError as error: print(error.errno)
with open("/dev/fd/64", "r+b", buffering=0) as again:
    try: again.write(b"no")
    except OSError as error: print(error.errno, again.read())
"""
    captured = go(python(program, descriptors=((64, b"yes"),)), isolation=level)
    assert captured.stdout.data == b"%d\n%d\n%d\n%d b'yes'\n" % ((errno.EPERM,) * 4)


@pytest.mark.parametrize("descriptors", [((63, b""),), ((64, b""), (64, b""))])
def test_descriptors_that_overlap_are_refused(descriptors: tuple[tuple[int, bytes], ...]) -> None:
    with pytest.raises(GovrunError) as refusal:
        go(a_plan("/bin/true", descriptors=descriptors))
    assert (ExitCode.TEMPLATE_REFUSED, "template.descriptor") == (refusal.value.code, refusal.value.rule)


def test_the_child_runs_in_the_given_directory(level: str, tmp_path: Path) -> None:
    assert go(shell("pwd -P", cwd=str(tmp_path)), isolation=level).stdout.data == f"{tmp_path.resolve()}\n".encode()


def test_the_child_leads_a_session_and_has_no_terminal() -> None:
    program = "import os\nprint(os.getsid(0) == os.getpgid(0) == os.getpid())"
    assert go(python(program), isolation="group").stdout.data == b"True\n"


def test_signals_are_as_a_fresh_process_expects_them(level: str) -> None:
    before = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGHUP})
    try:
        captured = go(shell("cat /proc/self/status"), isolation=level)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGUSR2, before)
    status = dict(line.split(b":\t") for line in captured.stdout.data.splitlines() if line.startswith(b"Sig"))
    # Signals 32 and 33 belong to the C library, which lets nobody set them: as govrun inherited them, so does a child.
    of_the_c_library = 1 << 31 | 1 << 32
    assert [int(status[name], 16) & ~of_the_c_library for name in (b"SigBlk", b"SigIgn", b"SigCgt")] == [0, 0, 0]


def test_the_child_dumps_no_core(level: str) -> None:
    assert go(shell("ulimit -H -c; ulimit -S -c"), isolation=level).stdout.data == b"0\n0\n"


def test_a_pid_namespace_shows_the_child_only_itself(bubblewrap: None) -> None:
    captured = go(shell("echo $$; ls /proc | grep -c '^[0-9]'"), isolation="pidNamespace")
    assert captured.stdout.data.split()[0] == b"2"
    assert int(captured.stdout.data.split()[1]) <= 4


# -- what could not start -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("isolation", ["group", "pidNamespace", "best"])
@pytest.mark.parametrize("program", ["missing", "notExecutable", "directory", "noInterpreter", "noFormat", "noCwd"])
def test_what_cannot_be_executed_is_not_started(isolation: str, program: str, tmp_path: Path) -> None:
    path = tmp_path / program
    heard: list[bytes] = []
    if program == "directory":
        path.mkdir()
    elif program == "noInterpreter":
        path.write_text("#!/nowhere/at/all\n")
    elif program != "missing":
        path.write_text("echo a shell took over\n")
    if program not in ("missing", "notExecutable"):
        path.chmod(0o755)
    plan = a_plan("/bin/true", cwd=str(tmp_path / "gone")) if program == "noCwd" else a_plan(str(path))
    captured = go(plan, watch=Watch(on_stderr=heard.append), isolation=isolation)
    assert ("couldNotStart", None, None) == (captured.ended, captured.exit_code, captured.signal)
    assert (b"", b"", 0) == (captured.stdout.data, captured.stderr.data, captured.stderr.size)
    assert heard == []


def test_what_cannot_be_placed_is_not_started() -> None:
    beyond = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert go(a_plan("/bin/true", descriptors=((beyond, b""),)), isolation="best").ended == "couldNotStart"


def test_an_environment_that_cannot_be_made_is_not_started() -> None:
    assert go(a_plan("/bin/true", environment=(("A=B", "C"),)), isolation="group").ended == "couldNotStart"


def test_when_no_descriptor_is_free_nothing_is_started() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")), before[1]))
    try:
        captured = go(a_plan("/bin/true"), isolation="group")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert captured.ended == "couldNotStart"
    assert not captured.containment.subreaper


def test_a_relative_program_is_refused() -> None:
    with pytest.raises(GovrunError) as refusal:
        go(a_plan("true"))
    assert (ExitCode.TEMPLATE_REFUSED, "template.program") == (refusal.value.code, refusal.value.rule)


def test_a_relative_directory_is_refused() -> None:
    with pytest.raises(GovrunError) as refusal:
        go(a_plan("/bin/true", cwd="here"))
    assert (ExitCode.TEMPLATE_REFUSED, "template.cwd") == (refusal.value.code, refusal.value.rule)


def test_a_script_with_an_interpreter_runs(level: str, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text('#!/bin/sh\necho "$1"\n')
    script.chmod(0o755)
    assert go(a_plan(str(script), "a b;c"), isolation=level).stdout.data == b"a b;c\n"


# -- what it used -------------------------------------------------------------------------------------------------


def test_cpu_time_beyond_the_limit_ends_the_run(level: str) -> None:
    captured = go(shell("while :; do :; done"), isolation=level, cpu_ms=300)
    assert ("cpuLimit", None) == (captured.ended, captured.exit_code)
    assert captured.cpu_ms is not None
    assert 250 <= captured.cpu_ms < 1000


def test_the_cpu_limit_is_for_all_processes_together(level: str) -> None:
    burn = "while :; do :; done"
    captured = go(shell(f"({burn}) & ({burn}) & wait"), isolation=level, cpu_ms=400)
    assert captured.ended == "cpuLimit"


def test_a_run_within_its_limits_just_ends(level: str) -> None:
    captured = go(shell("sleep 0.3"), isolation=level, cpu_ms=60_000, memory_bytes=1 << 30)
    assert ("exited", 0) == (captured.ended, captured.exit_code)


def test_the_kernel_ends_what_uses_too_much_cpu_time_between_two_looks(level: str) -> None:
    before = set(family.children(os.getpid()))

    # The watcher is asleep in its callback, so only the kernel can act.
    def sleep_until_the_leader_is_gone(_: bytes) -> None:
        (keeper_pid,) = set(family.children(os.getpid())) - before
        until(lambda: family.children(keeper_pid) == ())

    plan = shell("echo x >&2; while :; do :; done")
    captured = go(plan, watch=Watch(on_stderr=sleep_until_the_leader_is_gone), isolation=level, cpu_ms=1000)
    assert ("cpuLimit", None, signal.SIGXCPU) == (captured.ended, captured.exit_code, captured.signal)


def test_a_child_that_ignores_the_kernels_first_word_on_cpu_time_is_killed(level: str) -> None:
    before = set(family.children(os.getpid()))

    def sleep_until_the_leader_is_gone(_: bytes) -> None:
        (keeper_pid,) = set(family.children(os.getpid())) - before
        until(lambda: family.children(keeper_pid) == ())

    program = "import os, signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nos.write(2, b'x')\nwhile True: pass"
    watch = Watch(on_stderr=sleep_until_the_leader_is_gone)
    captured = go(python(program), watch=watch, isolation=level, cpu_ms=100, grace_ms=0)
    assert ("cpuLimit", None, signal.SIGKILL) == (captured.ended, captured.exit_code, captured.signal)


def test_a_signal_that_the_cpu_limit_cannot_have_sent_is_not_called_a_limit() -> None:
    captured = go(shell("kill -XCPU $$"), isolation="group", cpu_ms=60_000)
    assert ("signalled", signal.SIGXCPU) == (captured.ended, captured.signal)


def test_a_limit_never_exceeds_that_of_govrun_itself() -> None:
    program = (
        "import resource\n"
        "from tests.execute.children import go, shell\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (50, 60))\n"
        "print(go(shell('ulimit -S -t; ulimit -H -t'), cpu_ms=90_000, isolation='group').stdout.data)"
    )
    environment = {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True)
    assert done.stdout == b"b'60\\n60\\n'\n"


def test_an_allocation_beyond_the_limit_fails_in_the_child(level: str) -> None:
    captured = go(python("x = bytes(600 << 20)"), isolation=level, memory_bytes=512 << 20)
    assert ("exited", 1) == (captured.ended, captured.exit_code)
    assert b"MemoryError" in captured.stderr.data


def test_processes_that_together_hold_too_much_are_ended(level: str) -> None:
    program = (
        "import os, time\n"
        "for _ in range(3):\n"
        "    if os.fork() == 0: x = bytearray(b'x') * (60 << 20); time.sleep(60)\n"
        "time.sleep(60)"
    )
    captured = go(python(program), isolation=level, memory_bytes=128 << 20)
    assert captured.ended == "memoryLimit"


def test_time_and_memory_are_measured(level: str) -> None:
    captured = go(python("x = bytearray(b'x') * (150 << 20)\nwhile __import__('time').process_time() < .2: pass"))
    assert captured.cpu_ms is not None
    assert captured.cpu_ms >= 200
    assert captured.max_rss_bytes is not None
    assert 150 << 20 < captured.max_rss_bytes < 300 << 20


def test_the_memory_of_a_small_child_is_unknown_rather_than_that_of_govrun(level: str) -> None:
    assert go(a_plan("/bin/true"), isolation=level).max_rss_bytes is None


# -- what it left -------------------------------------------------------------------------------------------------


def test_a_grandchild_that_holds_stdout_does_not_delay_the_end(level: str, nap: str) -> None:
    captured = go(shell(f"sleep {nap} & echo done"), isolation=level, wall_ms=60_000)
    assert ("exited", 0, b"done\n", False) == (
        captured.ended,
        captured.exit_code,
        captured.stdout.data,
        captured.stdout.truncated,
    )
    assert captured.duration_ms < 5_000
    assert captured.containment.leftovers == (1 if level == "group" else 0)


def test_a_daemon_does_not_survive(level: str, nap: str, tmp_path: Path) -> None:
    captured = go(python(DAEMON, str(tmp_path / "born"), nap), isolation=level)
    assert ("exited", 0) == (captured.ended, captured.exit_code)
    assert (tmp_path / "born").exists()
    assert with_word(nap) == []
    assert captured.containment.leftovers == (1 if level == "group" else 0)


def test_a_daemon_of_a_run_that_is_ended_does_not_survive(level: str, nap: str, tmp_path: Path) -> None:
    plan = python(DAEMON + "__import__('time').sleep(60)", str(tmp_path / "born"), nap)
    assert go(plan, isolation=level, wall_ms=500).ended == "wallLimit"
    assert (tmp_path / "born").exists()
    assert with_word(nap) == []


def test_orphans_that_end_by_themselves_are_no_leftovers(level: str) -> None:
    captured = go(shell("(sleep 0.02 & true &) & sleep 0.2; echo done"), isolation=level)
    assert (b"done\n", 0) == (captured.stdout.data, captured.containment.leftovers)


def test_a_child_that_closes_its_streams_and_lives_on_is_waited_for(level: str) -> None:
    captured = go(shell("exec >&- 2>&-; sleep 0.2; exit 5"), isolation=level)
    assert ("exited", 5) == (captured.ended, captured.exit_code)
    assert captured.duration_ms >= 200


def test_a_fork_bomb_is_gone_with_its_namespace(bubblewrap: None, nap: str) -> None:
    program = (
        "import os, sys, time\n"
        "for _ in range(40):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        for _ in range(3):\n"
        "            if os.fork() == 0: time.sleep(60)\n"
        "        time.sleep(60)\n"
        "time.sleep(60)"
    )
    assert go(python(program, nap), isolation="pidNamespace", wall_ms=500, grace_ms=100).ended == "wallLimit"
    assert with_word(nap) == []


def test_what_leaves_its_session_again_and_again_is_found(nap: str) -> None:
    program = (
        "import os, sys, time\n"
        "for _ in range(20):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        if os.fork() == 0: os.setsid(); os.fork(); time.sleep(60)\n"
        "        os._exit(0)\n"
        "time.sleep(0.2)"
    )
    captured = go(python(program, nap), isolation="group")
    assert ("exited", 0, 40) == (captured.ended, captured.exit_code, captured.containment.leftovers)
    assert with_word(nap) == []


def test_a_stranger_who_holds_the_stream_leaves_it_open_ended(tmp_path: Path) -> None:
    # A child can hand its stdout to a process that is not ours; it must neither be killed nor waited for.
    path = str(tmp_path / "socket")
    program = (
        "import socket, sys\n"
        "s = socket.socket(socket.AF_UNIX)\n"
        "s.connect(sys.argv[1])\n"
        "socket.send_fds(s, [b'x'], [1])\n"
        "print('end')"
    )
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        held: list[int] = []

        def take() -> None:
            connection, _ = listener.accept()
            with connection:
                held.extend(socket.recv_fds(connection, 1, 1)[1])

        thread = threading.Thread(target=take)
        thread.start()
        captured = go(python(program, path), isolation="group")
        thread.join()
        os.close(held[0])
    assert ("exited", b"end\n", True) == (captured.ended, captured.stdout.data, captured.stdout.truncated)


def test_other_children_of_the_program_are_left_alone(level: str) -> None:
    mine = subprocess.Popen(["/bin/sh", "-c", "read line; exit 9"], stdin=subprocess.PIPE)
    dead = subprocess.Popen(["/bin/sh", "-c", "exit 8"], start_new_session=True)
    with mine, dead:
        assert go(shell("(true &); exit 1"), isolation=level).exit_code == 1
        assert mine.poll() is None
        mine.communicate(b"\n")
        assert (9, 8) == (mine.returncode, dead.wait())


def test_two_threads_run_two_children(level: str, nap: str) -> None:
    codes: dict[int, object] = {}

    def one(code: int) -> None:
        captured = go(shell(f"sleep {nap} & setsid sleep {nap} & sleep 0.1; exit {code}"), isolation=level)
        codes[code] = (captured.exit_code, captured.containment.leftovers)

    threads = [threading.Thread(target=one, args=(code,)) for code in (3, 4, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == {code: (code, 2 if level == "group" else 0) for code in (3, 4, 5)}


# -- interrupts ---------------------------------------------------------------------------------------------------


def test_an_interrupt_before_the_start_starts_nothing(level: str, tmp_path: Path) -> None:
    with Interrupt() as interrupt:
        interrupt.request(signal.SIGINT)
        interrupt.request(signal.SIGTERM)
        captured = go(shell(f"touch {tmp_path}/ran"), watch=Watch(interrupt=interrupt), isolation=level)
        assert interrupt.signum == signal.SIGINT
    assert ("interrupted", None, None) == (captured.ended, captured.exit_code, captured.signal)
    assert not (tmp_path / "ran").exists()


def test_an_interrupt_ends_the_whole_group(level: str, nap: str) -> None:
    with Interrupt() as interrupt:
        # The signal comes while the child runs, through a handler, as from a terminal.
        before = signal.signal(signal.SIGALRM, lambda signum, _: interrupt.request(signum))
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        try:
            captured = go(shell(f"sleep {nap} & sleep {nap}"), watch=Watch(interrupt=interrupt), isolation=level)
        finally:
            signal.signal(signal.SIGALRM, before)
    assert ("interrupted", None, signal.SIGTERM) == (captured.ended, captured.exit_code, captured.signal)
    assert with_word(nap) == []


def test_one_interrupt_stops_every_run_that_watches_it(level: str, nap: str) -> None:
    ended: list[str] = []
    with Interrupt() as interrupt:

        def one() -> None:
            ended.append(go(shell(f"sleep {nap}"), watch=Watch(interrupt=interrupt), isolation=level).ended)

        threads = [threading.Thread(target=one) for _ in range(2)]
        for thread in threads:
            thread.start()
        until(lambda: len(with_word(nap)) >= 2)
        interrupt.request(signal.SIGTERM)
        for thread in threads:
            thread.join()
    assert ended == ["interrupted", "interrupted"]


def test_an_interrupt_as_early_as_can_be_leaves_nothing(level: str, nap: str) -> None:
    for delay in (0.001, 0.003, 0.005, 0.008, 0.012):
        with Interrupt() as interrupt:
            timer = threading.Timer(delay, interrupt.request, (signal.SIGINT,))
            timer.start()
            captured = go(shell(f"sleep {nap}"), watch=Watch(interrupt=interrupt), isolation=level)
            timer.join()
        assert captured.ended == "interrupted"
        assert with_word(nap) == []


def test_an_interrupt_after_the_leader_has_ended_changes_no_verdict(level: str) -> None:
    before = set(family.children(os.getpid()))
    with Interrupt() as interrupt:

        def last_words(part: bytes) -> None:
            if b"a" in part:
                (keeper_pid,) = set(family.children(os.getpid())) - before
                until(lambda: family.children(keeper_pid) == ())
            else:
                interrupt.request(signal.SIGINT)

        captured = go(
            shell("echo a >&2; sleep 0.1; echo b >&2; exit 4"),
            watch=Watch(on_stderr=last_words, interrupt=interrupt),
            isolation=level,
        )
        assert interrupt.signum == signal.SIGINT
    assert ("exited", 4, b"a\nb\n") == (captured.ended, captured.exit_code, captured.stderr.data)


# -- when govrun or its keeper dies -------------------------------------------------------------------------------

GOVRUN = """
import sys
from tests.execute.children import DAEMON, go, python
level, nap, born = sys.argv[1:]
go(python(DAEMON + f"__import__('os').system('sleep {nap}')", born, nap), isolation=level)
"""


def a_govrun(level: str, nap: str, tmp_path: Path) -> subprocess.Popen[bytes]:
    environment = {"PYTHONPATH": f"{Path(__file__).parent}:{Path(__file__).parents[2]}", "PATH": "/usr/bin:/bin"}
    argv = [sys.executable, "-c", GOVRUN, level, nap, str(tmp_path / "born")]
    process = subprocess.Popen(argv, env=environment)
    # The program itself, its daemon, and the shell that sleeps.
    until(lambda: len(sleepers(nap)) == 2, seconds=20)
    return process


def sleepers(nap: str) -> list[int]:
    return [pid for pid in with_word(nap) if b"sleep\0" + nap.encode() in _command_line(pid)]


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_when_govrun_is_killed_everything_dies(level: str, nap: str, tmp_path: Path) -> None:
    with a_govrun(level, nap, tmp_path) as process:
        pids = family.descendants(process.pid)
        assert len(pids) >= 4
        process.kill()
        process.wait()
        until(lambda: with_word(nap) == [])
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def test_when_govrun_and_its_keeper_are_killed_a_namespace_dies(bubblewrap: None, nap: str, tmp_path: Path) -> None:
    with a_govrun("pidNamespace", nap, tmp_path) as process:
        (keeper_pid,) = family.children(process.pid)
        os.kill(process.pid, signal.SIGSTOP)
        os.kill(keeper_pid, signal.SIGKILL)
        process.kill()
        process.wait()
        until(lambda: with_word(nap) == [])


def test_a_keeper_that_is_killed_takes_its_leader_along(level: str, nap: str) -> None:
    before = set(family.children(os.getpid()))

    def kill_the_keeper(_: bytes) -> None:
        (keeper_pid,) = set(family.children(os.getpid())) - before
        os.kill(keeper_pid, signal.SIGKILL)

    captured = go(shell(f"echo x >&2; exec sleep {nap}"), watch=Watch(on_stderr=kill_the_keeper), isolation=level)
    assert ("signalled", None, signal.SIGKILL) == (captured.ended, captured.exit_code, captured.signal)
    assert captured.cpu_ms is None
    until(lambda: with_word(nap) == [])


def test_a_keeper_that_does_not_answer_is_given_up(level: str, nap: str) -> None:
    before = set(family.children(os.getpid()))

    def stop_the_keeper(_: bytes) -> None:
        (keeper_pid,) = set(family.children(os.getpid())) - before
        os.kill(keeper_pid, signal.SIGSTOP)

    captured = go(
        shell(f"echo x >&2; exec sleep {nap}"),
        watch=Watch(on_stderr=stop_the_keeper),
        isolation=level,
        wall_ms=300,
        grace_ms=100,
    )
    assert ("wallLimit", signal.SIGKILL) == (captured.ended, captured.signal)
    until(lambda: with_word(nap) == [])


def test_a_bubblewrap_that_is_killed_takes_everything_along(bubblewrap: None, nap: str) -> None:
    before = set(family.children(os.getpid()))

    def kill_bubblewrap(_: bytes) -> None:
        (keeper_pid,) = set(family.children(os.getpid())) - before
        os.kill(family.children(keeper_pid)[0], signal.SIGKILL)

    captured = go(
        shell(f"echo x >&2; setsid sleep {nap} & sleep {nap}"),
        watch=Watch(on_stderr=kill_bubblewrap),
        isolation="pidNamespace",
    )
    assert ("signalled", None, signal.SIGKILL) == (captured.ended, captured.exit_code, captured.signal)
    assert with_word(nap) == []


def test_a_program_that_reaps_all_its_children_does_not_disturb(level: str) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        captured = go(shell("echo fine; exit 2"), isolation=level)
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert ("exited", 2, b"fine\n") == (captured.ended, captured.exit_code, captured.stdout.data)


@pytest.mark.threads
def test_a_fork_for_one_run_does_not_keep_the_output_of_another_open(level: str) -> None:
    """Short runs of many threads: each sees the end of its own pipes, and no output is taken for cut off."""
    with ThreadPoolExecutor(16) as pool:
        captured = list(pool.map(lambda _: go(shell("echo fine"), isolation=level), range(96)))
    assert {("exited", b"fine\n", False)} == {(c.ended, c.stdout.data, c.stdout.truncated) for c in captured}
