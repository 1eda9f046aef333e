"""Which version this is, of the webhook and of the reconciler."""

import argparse
from pathlib import Path
from typing import Final

# Defined only here: pyproject.toml reads it from this file, as the images have no package metadata.
VERSION: Final = "0.1.0"


def _revision() -> str:
    try:
        return Path(__file__).with_name("revision").read_text(encoding="utf-8").strip()
    except OSError:
        return "unknown"


# The commit that the image was built from, if the build was given one, which it writes to a file.
REVISION: Final = _revision()


def add_argument(parser: argparse.ArgumentParser) -> None:
    """`--version`."""
    parser.add_argument("--version", action="version", version=f"ipvlan-bandwidth {VERSION}, revision {REVISION}")
