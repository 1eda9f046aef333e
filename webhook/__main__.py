"""`python3 -m webhook`: the webhook's commands."""

import argparse
import sys
from collections.abc import Sequence

from webhook.common import version
from webhook.common.sigterm import exit_on_sigterm

_REVIEW = """\
Read manifests (Pods, workloads, Namespaces, Lists of them) or an AdmissionReview from standard input, as JSON or YAML,
and print what the webhook would answer. No cluster is needed.

examples:
  python3 -m webhook review < pod.yaml
  kubectl kustomize deploy | python3 -m webhook review
  kubectl get namespace/shop pod/cart -n shop -o yaml | python3 -m webhook review
  python3 -m webhook review --network kube-system.ipvlan < pod.yaml
"""
_STATUS = (
    "exit status: 0 all would be allowed, 1 something would be refused, 2 the input cannot be read, has no Pod,\n"
    "or has Pods in namespaces without the label alone"
)


def main(arguments: Sequence[str]) -> int:
    """Run the command that the arguments name, and give its exit status."""
    serves = arguments[:1] == ["serve"]
    if serves:
        exit_on_sigterm()
    from webhook import review_command  # noqa: PLC0415 - only now, as importing takes a while

    parser = argparse.ArgumentParser(
        prog="python3 -m webhook",
        description="Admission of Pods with bandwidth limits on ipvlan: checks and normalises the bandwidth "
        "annotations, and injects the network that the Pod's namespace is labelled with.",
        epilog="'python3 -m webhook COMMAND --help' tells more of a command.",
    )
    version.add_argument(parser)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    serve = commands.add_parser("serve", help="answer the API server over HTTPS, in a cluster")
    review = commands.add_parser(
        "review",
        help="answer standard input: for authors, CI pipelines and bug reports",
        description=_REVIEW,
        epilog=_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    review_command.add_arguments(review)
    if serves:
        # Only here: it brings aiohttp and the Kubernetes client, and the other commands should answer at once.
        from webhook import server, settings  # noqa: PLC0415

        settings.add_arguments(serve)
        return server.main(parser.parse_args(arguments))
    return review_command.main(parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
