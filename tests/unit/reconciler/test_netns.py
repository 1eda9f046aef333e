"""Since when a network namespace is there; tests/kernel has all else of them."""

import os
import time

from reconciler.kernel.netns import created_s


def test_a_namespace_is_there_since_its_inode_was_made_and_never_since_before_the_node_started(tmp_path):
    booted_s = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    path = tmp_path / "netns"
    path.touch()
    made_s = path.stat().st_mtime
    assert created_s(str(path)) == made_s
    os.utime(path, (0, 0))  # as made before the clock was set
    assert abs(created_s(str(path)) - booted_s) < 1
    assert abs(created_s(str(tmp_path / "gone")) - booted_s) < 1
