"""The table of sandboxes follows the runtime."""

from reconciler.pods import PodView
from reconciler.sandboxes import Sandbox, Sandboxes


def sandbox(ident, uid="u1", path="/run/netns/a"):
    return Sandbox(ident, PodView(uid, "shop", "web-0"), path)


def test_a_recreated_sandbox_stands_beside_the_old_one_until_that_goes():
    table = Sandboxes()
    old, new = sandbox("s1"), sandbox("s2", path="/run/netns/b")
    table.add(old)
    table.add(new)
    assert table.of("u1") == (old, new)
    assert table.remove("s1") == old
    assert table.of("u1") == (new,)
    assert table.remove("s1") is None


def test_the_hosts_network_is_not_kept():
    table = Sandboxes()
    table.add(sandbox("s1", path=""))
    assert list(table) == []


def test_a_full_list_tells_who_is_gone():
    table = Sandboxes()
    one, two = sandbox("s1"), sandbox("s2", uid="u2", path="/run/netns/b")
    assert table.replace([one, two]) == ()
    assert table.replace([two, sandbox("s3", path="")]) == (one,)
    assert list(table) == [two]


def test_a_sandbox_is_found_by_its_netns():
    table = Sandboxes()
    table.add(sandbox("s1"))
    assert table.at("/run/netns/a") == sandbox("s1")
    assert table.at("/run/netns/b") is None
    assert sandbox("s1").key == ("u1", "/run/netns/a")
