"""What a webhook that may not read Namespaces says to whom, with the manifests' permissions and a real API server."""

from tests.cluster.control_plane import run_alone


def test_a_person_is_told_that_the_webhook_may_not_read_namespaces_and_the_manifests_permissions_are_enough() -> None:
    result = run_alone("tests.cluster.forbidden", 150)
    print(result["refusal"], result["readiness"], sep="\n")
    assert "cannot read the Pod's Namespace just now, try again" in result["refusal"]
    assert 'namespaces \\"shop\\" is forbidden' in result["refusal"]
    assert ": 503 " in result["refusal"]
    assert "waiting for the first list of Namespaces: namespaces is forbidden: User " in result["readiness"]
    assert result["created"]["metadata"]["annotations"]["kubernetes.io/ingress-bandwidth"] == "100M"
