"""Which version this is, of the webhook and of the reconciler."""

import argparse
from pathlib import Path
from typing import Final

# The one place where it is said: pyproject.toml takes it from here, as the images have no packages' metadata.
VERSION: Final = "0.1.0"


def _revision() -> str:
    try:
        return Path(__file__).with_name("revision").read_text(encoding="utf-8").strip()
    except OSError:
        return "unknown"


# The commit that the image was built from, where its build was told; it leaves a file.
REVISION: Final = _revision()


def add_argument(parser: argparse.ArgumentParser) -> None:
    """`--version`."""
    parser.add_argument("--version", action="version", version=f"ipvlan-bandwidth {VERSION}, revision {REVISION}")
