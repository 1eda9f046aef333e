"""The table of sandboxes follows the runtime."""

from reconciler.nri.messages import PodSandbox
from reconciler.pods import PodView
from reconciler.sandboxes import Key, Sandbox, Sandboxes
from webhook.common.contract import Limits, Quantity


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


def test_a_pod_whose_sandbox_had_a_netns_is_none_that_nobody_names_when_that_ends():
    table = Sandboxes()
    table.synchronize([sandbox("s1", path=""), sandbox("s2", uid="u2", path="")])
    table.add(sandbox("s3", path="/run/netns/b"))
    table.remove("s3")
    assert {each.pod.uid for each in table.listed_without_netns()} == {"u2"}


def test_what_has_no_netns_is_not_among_those_with_one():
    table = Sandboxes()
    without = sandbox("s1", path="")
    table.add(without)
    assert list(table) == []
    assert table.started_without_netns() == (without,)
    assert table.remove("s1") == without
    assert table.started_without_netns() == ()


def test_who_is_known_stays_also_when_a_full_list_lacks_it_or_its_netns():
    table = Sandboxes()
    one, two = sandbox("s1"), sandbox("s2", uid="u2", path="/run/netns/b")
    table.synchronize([one, two])
    table.synchronize([sandbox("s2", uid="u2", path=""), sandbox("s3", path="")])
    assert list(table) == [one, two]


def test_of_those_without_a_netns_a_full_list_leaves_those_that_it_has():
    table = Sandboxes()
    one, two = sandbox("s1", path=""), sandbox("s2", path="")
    table.add(one)
    table.add(two)
    table.synchronize([two, sandbox("s3", path="")])
    assert table.started_without_netns() == (two,), "s3 may have ended, and its netns be gone"


def test_a_netns_is_given_to_a_pod_that_the_list_has_without_one_and_to_no_other():
    table = Sandboxes()
    table.synchronize([sandbox("s1", path=""), sandbox("s2", uid="u2", path="/run/netns/b")])
    assert not table.place(Key("u9", "/run/netns/a"), None)
    assert not table.place(Key("u2", "/run/netns/b"), None)
    assert table.place(Key("u1", "/run/netns/a"), None)
    assert table.at("/run/netns/a").pod.uid == "u1"
    assert not table.place(Key("u1", "/run/netns/a"), None)


def test_a_netns_is_given_to_a_pod_that_the_api_server_tells_of_until_the_runtime_names_it():
    table = Sandboxes()
    assert table.place(Key("u1", "/run/netns/a"), PodView("u1", "shop", "web-0", ingress="1M"))
    table.synchronize([sandbox("s1")])
    assert [(each.id, each.pod.ingress) for each in table] == [("s1", "1M")]


def test_a_netns_that_was_given_to_a_pod_is_its_sandboxes_when_the_runtime_names_it():
    table = Sandboxes()
    table.synchronize([sandbox("s1", path="")])
    table.place(Key("u1", "/run/netns/a"), None)
    table.adopt(Key("u1", "/run/netns/a"), Limits(egress=Quantity(5000)))
    table.synchronize([sandbox("s1")])
    assert [(each.id, each.pod.egress) for each in table] == [("s1", "5k")]
    table.synchronize([sandbox("s2", path="")])
    table.synchronize([sandbox("s3", uid="u2", path="")])
    assert table.place(Key("u2", "/run/netns/b"), None)
    table.synchronize([sandbox("s4", uid="u3", path="/run/netns/b")])
    assert [(each.id, each.pod.uid) for each in table] == [("s1", "u1"), ("s4", "u3")], "the path is another's by now"


def test_a_sandbox_that_begins_takes_the_place_of_one_that_was_placed_there():
    table = Sandboxes()
    table.synchronize([sandbox("s1", path="")])
    table.place(Key("u1", "/run/netns/a"), None)
    begun = sandbox("s2")
    table.add(begun)
    assert list(table) == [begun]


def test_a_sandbox_that_ends_is_known_by_the_netns_where_its_pod_was_placed():
    table = Sandboxes()
    table.place(Key("u1", "/run/netns/a"), PodView("u1", "shop", "web-0"))
    table.add(sandbox("s2", uid="u2", path="/run/netns/b"))
    assert table.id_of(sandbox("s1")) == "/run/netns/a"
    assert table.id_of(sandbox("s1", path="")) == "s1"
    assert table.id_of(sandbox("s1", path="/run/netns/c")) == "s1"
    assert table.id_of(sandbox("s9", uid="u9")) == "s9", "the path is another's"
    assert table.id_of(sandbox("s2", uid="u2", path="/run/netns/b")) == "s2"


def test_a_netns_has_one_path_however_the_runtime_names_it():
    for path in ("/run/netns/a", "/var/run/netns/a"):
        assert Sandbox.from_nri(PodSandbox("s1", "web-0", "u1", "shop", netns_path=path)).key == ("u1", "/run/netns/a")


def test_what_was_learnt_of_a_pod_stays_whatever_the_runtime_tells_again():
    table = Sandboxes()
    first, second, other = sandbox("s1"), sandbox("s2", path="/run/netns/b"), sandbox("s3", uid="u2")
    table.synchronize([first, second, other])
    assert table.adopt(first.key, Limits(egress=Quantity(5000)))
    assert not table.adopt(Key("u9", "/run/netns/a"), Limits(egress=Quantity(5000)))
    table.synchronize([first, second, other])
    assert [each.pod.egress for each in table] == ["5k", None, None]
    last = PodView("u1", "shop", "web-0", managed=True, ingress="1M")
    table.keep_last_view(last)
    assert [each.pod for each in table] == [last, last, other.pod]
    assert [each.netns_path for each in table.of("u1")] == ["/run/netns/a", "/run/netns/b"]


def test_one_whose_end_was_told_is_listed_in_vain_until_it_is_gone_or_begins():
    table = Sandboxes()
    one = sandbox("s1")
    table.on_stopped(one)
    table.synchronize([one, sandbox("s2", uid="u2", path="")])
    assert list(table) == []
    table.on_stopped(sandbox("s2", uid="u2", path=""))
    table.synchronize([one, sandbox("s2", uid="u2", path="")])
    assert table.listed_without_netns() == ()
    table.synchronize([])
    table.synchronize([one])
    assert list(table) == [one], "that was another one"
    for end in (lambda: table.on_removed("s1"), lambda: table.add(one)):
        table.remove("s1")
        table.on_stopped(one)
        end()
        table.synchronize([one])
        assert list(table) == [one]


def test_a_sandbox_is_found_by_its_netns():
    table = Sandboxes()
    table.add(sandbox("s1"))
    assert table.at("/run/netns/a") == sandbox("s1")
    assert table.at("/run/netns/b") is None
    assert sandbox("s1").key == ("u1", "/run/netns/a")
