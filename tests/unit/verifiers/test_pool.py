"""The pool of killable workers, with functions that misbehave."""

import os
import sys
import threading
import time
from pathlib import Path

import processes
import pytest

from masa.errors import TrainingError
from masa.verifiers.pool import VerdictPool

BAD = """
import os, sys, time
def act(item):
    kind, value = item
    if kind == "spin":
        while True: pass
    if kind == "power": return 9 ** 9 ** 9 > value
    if kind == "die": os._exit(3)
    if kind == "raise": raise KeyError(value)
    if kind == "memory": return len(bytearray(value)) > 0
    if kind == "print": print("noise")
    if kind == "modules": return [name for name in ("torch", "vllm") if name in sys.modules]
    return value
"""


@pytest.fixture
def bad(tmp_path, monkeypatch):
    (tmp_path / "misbehave.py").write_text(BAD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "misbehave:act"


def test_an_item_that_breaks_a_limit_is_none_alone(bad):
    items = [["ok", 1], ["spin", 0], ["ok", 2], ["power", 0], ["die", 0], ["raise", 1]]
    items += [["memory", 1 << 30], ["memory", 1 << 20], ["print", 5], ["ok", "é\n"]]
    expected = [1, None, 2, None, None, None, None, True, 5, "é\n"]
    for workers in (1, 2):
        with VerdictPool(bad, workers, seconds=0.3, memory=1 << 28) as pool:
            assert pool.map(items) == expected


def test_no_worker_outlives_its_pool(bad):
    with VerdictPool(bad, 2, seconds=1, memory=1 << 28) as pool:
        pool.map([["ok", n] for n in range(20)])
        ids = [worker.process.pid for worker in pool._workers if worker.process]
    assert ids
    for process in ids:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_a_killed_worker_is_replaced(bad):
    with VerdictPool(bad, 1, seconds=1, memory=1 << 28) as pool:
        assert pool.map([["ok", 1]]) == [1]
        pool._workers[0].process.kill()
        assert pool.map([["ok", 2]]) == [2]


def test_a_worker_that_cannot_start_is_an_error(bad, monkeypatch):
    with VerdictPool("no_such_module:act", 1, seconds=1, memory=1 << 28) as pool:
        with pytest.raises(TrainingError, match="did not start.*no_such_module") as caught:
            pool.map([1])
    assert "\n" not in str(caught.value)
    monkeypatch.setattr("sys.executable", "/no/such/python")
    with VerdictPool(bad, 1, seconds=1, memory=1 << 28) as pool:
        with pytest.raises(TrainingError, match="did not start.*/no/such/python"):
            pool.map([1])
    with pytest.raises(ValueError, match="workers >= 1"):
        VerdictPool("x:y", 0, seconds=1, memory=1)


def test_the_limit_is_cpu_time(bad):
    """A worker that is stopped for longer than its limit still gives its verdict."""
    with VerdictPool(bad, 1, seconds=0.2, memory=1 << 28) as pool:
        pool.map([["ok", 0]])
        process = pool._workers[0].process
        process.send_signal(19)  # SIGSTOP
        threading.Timer(0.8, process.send_signal, [18]).start()  # SIGCONT
        start = time.monotonic()
        assert pool.map([["ok", 7]]) == [7]
        assert time.monotonic() - start > 0.5


def test_plain_script_and_light_imports(tmp_path):
    """No `if __name__` guard is needed, and neither side imports what it does not use."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom masa.verifiers.math.verifier import verify, verify_batch\n"
        "print(verify('1/2', r'\\boxed{0.5}'), 'torch' in sys.modules, 'sympy' in sys.modules)\n"
        "print(len(verify_batch([])))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, str(script)]
    process = processes.run(command, env=environment, cwd=tmp_path)
    assert process.stdout.split() == ["True", "False", "False", "0"], process.stderr
    assert not process.stderr


def test_workers_do_not_import_torch(bad):
    with VerdictPool(bad, 1, seconds=1, memory=1 << 28) as pool:
        assert pool.map([["modules", 0]]) == [[]]
