"""The command line: run, observe, clean."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from webhook import version
from webhook.logs import configure_logging

NETNS_FOLDER = Path("/run/netns")
LOG_LEVELS = ("debug", "info", "warning", "error")


def main(argv: Sequence[str]) -> int:
    """Run one command; gives the exit status: 0 done, 1 failed, 2 wrong usage."""
    args = _parser().parse_args(argv)
    configure_logging(sys.stderr, ("reconciler", "webhook"), args.log_level)
    try:
        return int(args.call(args))
    except KeyboardInterrupt:
        return 130


def _run(args: argparse.Namespace) -> int:
    from reconciler.daemon import Settings, run  # noqa: PLC0415 - the other commands need none of it
    from reconciler.shaping import ShapingError  # noqa: PLC0415 - as above
    from webhook.endpoint import ConfigurationError  # noqa: PLC0415 - as above

    if not args.node:
        sys.stderr.write("which node is this? Set --node or the NODE_NAME variable (the DaemonSet does)\n")
        return 2
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
    from reconciler import observe  # noqa: PLC0415 - as above

    return observe.main(args.netns_folder, node=args.node, as_json=args.json)


def _clean(args: argparse.Namespace) -> int:
    from reconciler import observe  # noqa: PLC0415 - as above

    return observe.remove(args.netns_folder)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -m reconciler",
        description="Keeps the bandwidth of this node's Pods on ipvlan at what their annotations say.",
    )
    version.add_argument(parser)
    parser.add_argument("--log-level", default="info", choices=LOG_LEVELS, help="what is logged [%(default)s]")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run on a node, as the DaemonSet does")
    run.add_argument("--node", default=os.environ.get("NODE_NAME", ""), help="this node's name [NODE_NAME]")
    run.add_argument(
        "--nri-socket", type=Path, default=Path("/var/run/nri/nri.sock"), help="the runtime's NRI socket [%(default)s]"
    )
    run.add_argument("--listen", default="", help="address for metrics [all]")
    run.add_argument("--port", type=int, default=9745, help="port for metrics [%(default)s]")
    run.add_argument(
        "--probe-port", type=int, default=9746, help="port of 127.0.0.1 for kubelet's probes [%(default)s]"
    )
    run.add_argument("--slots", type=_slots, default=256, help="the most Pods limited at once [%(default)s]")
    run.add_argument("--log-level", default=argparse.SUPPRESS, choices=LOG_LEVELS, help="what is logged [info]")
    run.set_defaults(call=_run)

    observe = commands.add_parser("observe", help="print what the kernel holds for each limited Pod of this node")
    observe.add_argument("--json", action="store_true", help="as JSON, for programs")
    observe.add_argument(
        "--node", default=os.environ.get("NODE_NAME", ""), help="to ask the API server for Pods' names"
    )
    _folder(observe)
    observe.set_defaults(call=_observe)

    clean = commands.add_parser("clean", help="take all shaping off this node's Pods")
    _folder(clean)
    clean.set_defaults(call=_clean)
    return parser


def _folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--netns-folder", type=Path, default=NETNS_FOLDER, help="where the runtime keeps Pods' netns [%(default)s]"
    )


def _slots(text: str) -> int:
    # A filter's class id reaches the program as 16 bits, and a slot takes two.
    most = 32_000
    value = int(text)
    if not 1 <= value <= most:
        raise argparse.ArgumentTypeError(f"must be from 1 to {most}: a filter's class id has 16 bits, a slot takes two")
    return value
