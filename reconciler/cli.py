"""The command line: run, observe, clean."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from reconciler import paths
from webhook.common import arguments, version
from webhook.common.logs import configure_logging


def main(argv: Sequence[str]) -> int:
    """Run one command; returns the exit status: 0 done, 1 failed, 2 wrong usage."""
    args = _parser().parse_args(argv)
    configure_logging(sys.stderr, ("reconciler", "webhook"), args.log_level)
    try:
        return int(args.call(args))
    except KeyboardInterrupt:
        return 130


def _run(args: argparse.Namespace) -> int:
    if not args.node:
        sys.stderr.write("which node is this? Set --node or the NODE_NAME variable (the DaemonSet does)\n")
        return 2
    from reconciler.daemon import Settings, run  # noqa: PLC0415 - the other commands need none of it
    from reconciler.kernel.errors import ShapingError  # noqa: PLC0415 - as above
    from webhook.common.endpoint import ConfigurationError  # noqa: PLC0415 - as above

    settings = Settings(
        node=args.node,
        nri_socket=args.nri_socket,
        host=args.listen,
        port=args.port,
        probe_port=args.probe_port,
        slots=args.slots,
    )
    try:
        asyncio.run(run(settings))
    except (ConfigurationError, ShapingError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _observe(args: argparse.Namespace) -> int:
    from reconciler import commands  # noqa: PLC0415 - as above

    return commands.run_observe(args.netns_folder, node=args.node, as_json=args.json)


def _clean(args: argparse.Namespace) -> int:
    from reconciler import commands  # noqa: PLC0415 - as above

    return commands.run_clean(args.netns_folder, args.nri_socket.parent)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -m reconciler",
        description="Keeps the bandwidth of this node's Pods on ipvlan at what their annotations say.",
    )
    version.add_argument(parser)
    arguments.add_log_level(parser, "what is logged")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run on a node, as the DaemonSet does")
    _node(run, "this node's name")
    _socket(run, "the runtime's NRI socket")
    run.add_argument("--listen", default="", metavar="ADDRESS", help="address for metrics (default: all)")
    arguments.add_port(run, "--port", 9745, "port for metrics")
    arguments.add_port(run, "--probe-port", 9746, "port of 127.0.0.1 for kubelet's probes")
    run.add_argument(
        "--slots",
        type=_slots,
        default=256,
        metavar="NUMBER",
        help="the most Pods limited at once (default: %(default)s)",
    )
    arguments.add_log_level(run, "what is logged", default=argparse.SUPPRESS)
    run.set_defaults(call=_run)

    observe = commands.add_parser("observe", help="print what the kernel holds for each limited Pod of this node")
    observe.add_argument("--json", action="store_true", help="as JSON, for programs")
    _node(observe, "the node whose Pods' names to ask the API server for")
    _folder(observe)
    observe.set_defaults(call=_observe)

    clean = commands.add_parser("clean", help="take all shaping off this node's Pods")
    _folder(clean)
    _socket(clean, "the runtime's NRI socket: its folder has the reconciler's lock, and the record of its programs")
    clean.set_defaults(call=_clean)
    return parser


def _node(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--node",
        default=os.environ.get("NODE_NAME", ""),
        metavar="NAME",
        help=f"{what} (if not given: the environment variable NODE_NAME)",
    )


def _folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--netns-folder",
        type=Path,
        default=Path(paths.NETNS_FOLDER),
        metavar="FOLDER",
        help="where the runtime keeps Pods' network namespaces (default: %(default)s)",
    )


def _socket(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--nri-socket",
        type=Path,
        default=Path(paths.NRI_SOCKET),
        metavar="PATH",
        help=f"{what} (default: %(default)s)",
    )


def _slots(text: str) -> int:
    # A filter's class id reaches the program as 16 bits, and a slot takes two class ids.
    return arguments.whole(text, 1, 32_000, "number of slots")
