"""Programs in processes of their own, of which none outlasts its test."""

import os
import signal
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

MARKER = "MASA_TEST_PROGRAM"
"""Variable that the processes of one program have in their environment."""


def run(
    command: Sequence[object],
    *,
    code: int | None = 0,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
    seconds: float = 600,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end.

    Args:
        command: program and arguments.
        code: exit code that it must have; None for any.
        env: its environment; None for the one of the tests.
        seconds: what it may take, with all that it starts. After that the test fails with what was
            printed and where each Python process stood, and no process is left.
    """
    marker = uuid.uuid4().hex
    words = [str(word) for word in command]
    process = subprocess.Popen(
        words,
        env={**(os.environ if env is None else env), MARKER: marker, "PYTHONFAULTHANDLER": "1"},
        cwd=cwd,
        stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    late = False
    try:
        out, err = process.communicate(stdin, seconds)
    except subprocess.TimeoutExpired:
        late = True
        # faulthandler prints the stacks
        _send(signal.SIGABRT, marker)
        try:
            out, err = process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            _send(signal.SIGKILL, marker)
            out, err = process.communicate()
    finally:
        psutil.wait_procs(_send(signal.SIGKILL, marker), timeout=20)
    said = f"{' '.join(words)}\n{out[-4000:]}{err[-16000:]}"
    if late:
        pytest.fail(f"not at its end after {seconds} s: {said}")
    assert code is None or process.returncode == code, f"exit code {process.returncode}: {said}"
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def _send(number: int, marker: str) -> list[psutil.Process]:
    """Signal the processes of a program, also where the one that started them has ended."""
    signalled = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARKER) == marker:
                process.send_signal(number)
                signalled.append(process)
    return signalled
