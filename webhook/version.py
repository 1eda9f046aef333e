"""Which version this is, of the webhook and of the reconciler."""

import argparse
import os
from typing import Final

# The one place where it is said: pyproject.toml takes it from here, as the images have no packages' metadata.
VERSION: Final = "0.1.0"
# The commit that an image was built from.
REVISION: Final = os.environ.get("IPVLAN_BANDWIDTH_REVISION") or "unknown"


def add_argument(parser: argparse.ArgumentParser) -> None:
    """`--version`."""
    parser.add_argument("--version", action="version", version=f"ipvlan-bandwidth {VERSION}, revision {REVISION}")
