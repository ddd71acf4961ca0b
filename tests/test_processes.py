"""What the tests start ends: it fails where it hangs, and leaves nothing behind."""

import sys

import processes
import psutil
import pytest

HANG = "import time; print('so far', flush=True)\ndef hang(): time.sleep(600)\nhang()"
STARTS_AND = f"""
import subprocess, sys
# of a session of its own, as the ranks of torchrun are
child = subprocess.Popen([sys.executable, "-c", {HANG!r}], start_new_session=True)
"""


def sleepers():
    """Processes of the programs below."""
    commands = [process.info["cmdline"] for process in psutil.process_iter(["cmdline"])]
    return [command for command in commands if command and HANG in command]


@pytest.mark.parametrize("then", ["child.wait()", "print('ended')"])
def test_a_program_that_hangs_fails_with_the_place_and_leaves_nothing(then):
    """Also where its child alone hangs, and holds what its output goes to."""
    with pytest.raises(pytest.fail.Exception, match=r"not at its end after 5 s(?s:.*)in hang\b"):
        processes.run([sys.executable, "-c", STARTS_AND + then], seconds=5)
    assert not sleepers()


def test_what_a_program_has_started_ends_with_it():
    silent = STARTS_AND.replace("True)", "True, stdout=-3, stderr=-3)")
    assert processes.run([sys.executable, "-c", silent]).stdout == ""
    assert not sleepers()


def test_another_exit_code_fails_with_what_was_said():
    refused = [sys.executable, "-c", "import sys; sys.exit('because')"]
    assert processes.run(refused, code=1).stderr == "because\n"
    with pytest.raises(AssertionError, match="exit code 1: (?s:.*)because"):
        processes.run(refused)
