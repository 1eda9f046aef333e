"""How a program ends that is told to while it starts."""

import subprocess
import sys

_PROGRAM = """
import os, runpy, signal, sys

class Slow:
    def find_spec(self, name, *_):
        if name == {imported!r}:
            os.kill(os.getpid(), signal.SIGTERM)

sys.meta_path.insert(0, Slow())
sys.argv = {arguments!r}
runpy.run_module({program!r}, run_name="__main__", alter_sys=True)
"""


def assert_ends_by_itself_at_sigterm(program: str, *arguments: str, importing: str) -> None:
    """That `python -m program` with these arguments does, when SIGTERM comes as it imports that module."""
    text = _PROGRAM.format(imported=importing, arguments=[program, *arguments], program=program)
    ran = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False, timeout=30)
    # By the signal itself it would be -15.
    assert (ran.returncode, ran.stderr) == (0, "")
