"""The embedded cluster for a person: `python -m tests.cluster up`, `down`, `node`, `enter`, `demo`."""

import argparse
import signal
import sys

from tests.cluster import remote
from tests.cluster.cluster import DEFAULT_NAME, Cluster
from tests.cluster.commands import ClusterError
from tests.cluster.launch import program

GUIDE = """
the embedded cluster is up:

  export KUBECONFIG={kubeconfig}
  export PATH={bin}:$PATH                        # kubectl

  {program} node 1 -- COMMAND          runs a command on node 1 (or 2); `-- bash` for a shell
  {program} enter NAMESPACE/POD -- COMMAND   runs a command of the node in the Pod's network namespace (nsenter)
  {program} down                       ends it; nothing of it remains

its logs are in {logs}"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("--name", default=DEFAULT_NAME, help="which cluster (default: %(default)s)")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start it and leave it up")
    commands.add_parser("down", help="end it")
    commands.add_parser("demo", help="show the project's main job on a cluster of its own")
    node = commands.add_parser("node", help="run a command on a node")
    node.add_argument("number", type=int, choices=(1, 2))
    enter = commands.add_parser("enter", help="run a command in a Pod's network namespace")
    enter.add_argument("pod", metavar="NAMESPACE/POD")
    for parser_of_argv in (node, enter):
        parser_of_argv.add_argument("argv", nargs="+", metavar="-- COMMAND")
    return parser


def _program(name: str) -> str:
    """This program's own command line, as the person would type it."""
    return f"{sys.executable} -m tests.cluster" + ("" if name == DEFAULT_NAME else f" --name {name}")


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _up(cluster: Cluster) -> int:
    cluster.up(detached=True)
    words = {"bin": program("kubectl").parent, "program": _program(cluster.name), "logs": cluster.paths.logs}
    sys.stdout.write(GUIDE.format(kubeconfig=cluster.paths.kubeconfig, **words) + "\n")
    return 0


def _remote(cluster: Cluster, options: argparse.Namespace) -> int:
    if not cluster.is_up():
        raise ClusterError(f"cluster {cluster.name} is not up: `{_program(cluster.name)} up` starts it")
    request = {"argv": options.argv}
    if options.command == "node":
        node = cluster.node(options.number)
    else:
        node = cluster.node_of(options.pod)
        request["pod"] = options.pod
    return remote.run(str(node.agent), request, terminal=sys.stdin.isatty() and sys.stdout.isatty())


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0, the command's own, or 1 when the cluster is at fault."""
    options = _parser().parse_args(arguments)
    # As Ctrl-C: what is half up is taken down again.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    cluster = Cluster(options.name, say=_say)
    try:
        match options.command:
            case "up":
                return _up(cluster)
            case "down":
                cluster.down()
                return 0
            case "demo":
                from tests.cluster import demo  # noqa: PLC0415 - the other commands need none of it

                return demo.main()
            case _:
                return _remote(cluster, options)
    except (ClusterError, OSError) as error:
        _say(str(error))
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
