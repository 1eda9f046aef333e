"""The table of sandboxes follows the runtime."""

from reconciler.pods import PodView
from reconciler.sandboxes import Sandbox, Sandboxes
from webhook.contract import Limits, Quantity


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


def test_what_was_learnt_of_a_pod_stays_whatever_the_runtime_tells_again():
    table = Sandboxes()
    first, second, other = sandbox("s1"), sandbox("s2", path="/run/netns/b"), sandbox("s3", uid="u2")
    table.replace([first, second, other])
    assert table.adopt(first.key, Limits(egress=Quantity(5000)))
    assert not table.adopt(("u9", "/run/netns/a"), Limits(egress=Quantity(5000)))
    assert table.replace([first, second, other]) == ()
    assert [each.pod.egress for each in table] == ["5k", None, None]
    last = PodView("u1", "shop", "web-0", managed=True, ingress="1M")
    table.learn(last)
    assert [each.pod for each in table] == [last, last, other.pod]
    assert [each.netns_path for each in table.of("u1")] == ["/run/netns/a", "/run/netns/b"]


def test_a_sandbox_is_found_by_its_netns():
    table = Sandboxes()
    table.add(sandbox("s1"))
    assert table.at("/run/netns/a") == sandbox("s1")
    assert table.at("/run/netns/b") is None
    assert sandbox("s1").key == ("u1", "/run/netns/a")
