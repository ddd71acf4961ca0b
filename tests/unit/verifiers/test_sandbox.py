"""Hostile programs in the real sandbox: none passes, escapes or outlives its verdict."""

import ast
import json
import os
import socket
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import processes
import pytest
from hostile import FUNCTION, HONEST, LIMITS, PRINTED, SECRET, programs, trial

from masa.errors import ConfigError
from masa.verifiers.code import sandbox as module
from masa.verifiers.code.programs import verify_program
from masa.verifiers.code.sandbox import MB, Sandbox, SandboxLimits

COMPLAINT = module._bubblewrap()[1]
needs_bubblewrap = pytest.mark.skipif(bool(COMPLAINT), reason=COMPLAINT)
PROGRAMS = programs(0)
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture(scope="module")
def isolated():
    return Sandbox(LIMITS)


@pytest.fixture
def without_bubblewrap(monkeypatch):
    """A machine with an empty PATH."""
    monkeypatch.setenv("PATH", "")
    module._bubblewrap.cache_clear()
    yield
    monkeypatch.undo()
    module._bubblewrap.cache_clear()


def alive(marker):
    """Processes whose command line holds `marker`."""
    paths = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if marker in path.read_bytes():
                paths.append(path)
        except OSError:
            pass
    return paths


@pytest.mark.slow
@needs_bubblewrap
@pytest.mark.parametrize("number", range(len(PROGRAMS)), ids=[p.name for p in PROGRAMS])
def test_hostile_programs_gain_nothing(number, isolated, listener, monkeypatch):
    monkeypatch.setenv(SECRET, "1")
    before = {path.name for path in Path.cwd().iterdir()}
    verdict, after = trial(programs(listener.getsockname()[1])[number], isolated)
    assert not verdict.correct
    assert verdict.seconds < LIMITS.wall_seconds + 2
    assert after.correct, after
    assert after.seconds < LIMITS.wall_seconds
    assert {path.name for path in Path.cwd().iterdir()} == before
    listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        listener.accept()


@pytest.mark.slow
@pytest.mark.parametrize("program", [p for p in PROGRAMS if p.harmless], ids=lambda p: p.name)
def test_limits_alone_stop_simple_programs(program, without_bubblewrap):
    sandbox = Sandbox(LIMITS, allow_unsafe_execution=True)
    assert not sandbox.isolated
    verdict, after = trial(program, sandbox)
    assert not verdict.correct
    assert after.correct, after


def test_a_naive_judge_in_one_process_is_deceived():
    """The attacks succeed without the sandbox."""
    hostile = {program.name: program.code for program in PROGRAMS}
    fooling = {
        "reads /etc/passwd",
        "reads the parent's environment",
        "is equal to everything",
        "is a number equal to everything",
        "walks frames and objects for the answer",
        "leaves before the checks",
        "leaves when called",
    }
    for name in fooling:
        naive = f"text = {hostile[name] + chr(10) + FUNCTION.code!r}\nexec(text, {{}})"
        processes.run([sys.executable, "-c", naive], env={SECRET: "1"})


@needs_bubblewrap
def test_a_daemon_ends_with_its_program():
    limits = SandboxLimits(cpu_seconds=1, wall_seconds=20, memory_mb=501)
    marker = str(501 * MB).encode()
    program = (
        "import os, time\nif not os.fork():\n    os.setsid()\n    time.sleep(1e6)\nprint('left')"
    )
    with Sandbox(limits).start(program, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"left\n"
        process.wait(10)
    # the kernel takes a moment to empty a process namespace
    for _ in range(100):
        if not alive(marker):
            break
        module.time.sleep(0.05)
    assert not alive(marker)


@needs_bubblewrap
def test_the_child_sees_no_environment_and_few_files(isolated):
    outcome = isolated.run("import os\nprint(dict(os.environ))\nprint(os.listdir('/'))")
    assert outcome.status == "exited"
    environment, roots = outcome.stdout.decode().splitlines()
    assert set(ast.literal_eval(environment)) <= {"PWD", "LC_CTYPE", "OPENBLAS_NUM_THREADS"}
    interpreter = {Path(path).parts[1] for path in module._needed()}
    assert not ({"home", "proc", "var", "run", "mnt"} - interpreter) & set(ast.literal_eval(roots))


def environment(folder, copies=False, farm=False):
    """A virtual environment in a folder; its only package is a link where `farm`."""
    venv.create(folder, symlinks=not copies)
    (packages,) = folder.glob("lib/python*/site-packages")
    place = packages
    if farm:
        place = folder.parent / "elsewhere" / "site-packages"
        place.mkdir(parents=True)
        (packages / "marker.py").symlink_to(place / "marker.py")
    (place / "marker.py").write_text("print('found')")
    return folder / "bin" / "python"


@needs_bubblewrap
@pytest.mark.parametrize("copies, farm", [(False, False), (True, False), (False, True)])
def test_an_environment_below_tmp_is_seen(copies, farm):
    """bubblewrap mounts an empty /tmp; only the environment below it is visible."""
    run = (
        "from masa.verifiers.code.sandbox import Sandbox\n"
        "program = 'import json, marker, os\\nprint(sorted(os.listdir(\"/tmp\")))'\n"
        "outcome = Sandbox().run(program)\n"
        "print(outcome.status, outcome.stdout.decode())"
    )
    with (
        tempfile.TemporaryDirectory(dir="/tmp") as folder,
        tempfile.NamedTemporaryFile(dir="/tmp") as other,
    ):
        linked = Path(folder) / "linked"
        linked.symlink_to("real")
        (Path(folder) / "real").mkdir()
        python = environment(linked / "environment", copies, farm)
        paths = os.pathsep.join([str(ROOT), *sys.path])
        process = processes.run([python, "-c", run], env={**os.environ, "PYTHONPATH": paths})
    assert process.stdout.startswith("exited found\n"), process.stderr
    # the packages of these tests may lie below /tmp as well
    visible = ast.literal_eval(process.stdout.splitlines()[1])
    assert Path(folder).name in visible and Path(other.name).name not in visible


def test_a_link_among_packages_shows_no_home(tmp_path, monkeypatch):
    packages = tmp_path / "site-packages"
    project = tmp_path / "project"
    (project / "package").mkdir(parents=True)
    packages.mkdir()
    (packages / "all").symlink_to(project)
    (packages / "one").symlink_to(project / "package")
    (packages / "home").symlink_to(Path.home())
    monkeypatch.setattr(sys, "path", [str(packages)])
    monkeypatch.chdir(project)
    needed = set(module._needed())
    assert str(project / "package") in needed
    assert not needed & {str(project), str(tmp_path), os.path.realpath(Path.home())}


@needs_bubblewrap
@pytest.mark.skipif(os.geteuid() != 0, reason="programs keep the user id of who is not root")
def test_packages_that_programs_may_not_read_are_named(tmp_path, monkeypatch):
    """Every program that imports one would be judged wrong."""
    closed = tmp_path / "site-packages"
    closed.mkdir(mode=0o700)
    monkeypatch.setattr(sys, "path", [*sys.path, str(closed)])
    module._bubblewrap.cache_clear()
    with pytest.raises(ConfigError, match="Permission denied.*chmod") as refusal:
        Sandbox()
    module._bubblewrap.cache_clear()
    assert str(closed) in str(refusal.value)


@needs_bubblewrap
def test_an_interpreter_that_does_not_run_inside_is_named(monkeypatch):
    """No advice on user namespaces where these work."""
    module._bubblewrap.cache_clear()
    monkeypatch.setattr(module, "_needed", lambda: [])
    monkeypatch.setattr(module, "_python", lambda: "/work/of/another/python")
    with pytest.raises(ConfigError, match="interpreter /work/of/another/python") as refusal:
        Sandbox()
    module._bubblewrap.cache_clear()
    assert "namespace" not in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize("unsafe", [True, pytest.param(False, marks=needs_bubblewrap)])
def test_programs_run_as_programs_do(unsafe, request):
    if unsafe:
        request.getfixturevalue("without_bubblewrap")
    sandbox = Sandbox(LIMITS, allow_unsafe_execution=unsafe)
    program = "import sys, numpy\nprint(sys.stdin.read() * 2, __name__)\nexit()\nprint('no')"
    outcome = sandbox.run(program, "héllo")
    assert (outcome.status, outcome.stdout.decode()) == ("exited", "héllohéllo __main__\n")
    assert sandbox.run("1 / 0").status == "crashed"
    assert sandbox.run("while True: pass").status == "timeout"
    assert sandbox.run("print('a' * 2 * 10**6)").status == "flood"


def test_refuses_without_bubblewrap(without_bubblewrap):
    with pytest.raises(ConfigError, match="apt install bubblewrap") as refusal:
        Sandbox()
    assert "\n" not in str(refusal.value)
    assert "allow_unsafe_execution=true" in str(refusal.value)


def test_refuses_a_bubblewrap_that_is_not_permitted(tmp_path, monkeypatch, without_bubblewrap):
    broken = tmp_path / "bwrap"
    broken.write_text(
        "#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n"
    )
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    module._bubblewrap.cache_clear()
    with pytest.raises(ConfigError, match="No permissions to create new namespace"):
        Sandbox()


def test_a_sandbox_that_does_not_start_is_an_error_and_no_verdict():
    sandbox = Sandbox(LIMITS, allow_unsafe_execution=True)
    sandbox._prefix = ("/bin/false",)
    for tests in (FUNCTION, PRINTED):
        with pytest.raises(RuntimeError, match="did not start"):
            verify_program(tests, HONEST, sandbox)


@pytest.mark.parametrize("name", ["cpu_seconds", "wall_seconds", "memory_mb", "output_mb"])
def test_limits_are_positive(name):
    with pytest.raises(ConfigError, match=name):
        SandboxLimits(**{name: 0})


def test_an_honest_program_is_plain_python():
    scope = {}
    exec(HONEST, scope)
    assert (scope["answer"](1), scope["answer"](2)) == (8731, 4409)


def test_parallel_programs_have_different_user_ids():
    prefix = ("bwrap", "CAP_SETUID")
    orders = [module._command(prefix, LIMITS, 0)[-1] for _ in range(1000)]
    ids = [json.loads(order)["uid"] for order in orders]
    assert len(set(ids)) == 1000 and set(ids) <= set(module.SPARE_UIDS)
