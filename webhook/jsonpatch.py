"""JSON Patch (RFC 6902) for maps of strings, one operation per key: other keys stay as they are."""

from collections.abc import Mapping
from typing import Any, TypeAlias

Operation: TypeAlias = dict[str, Any]


def escape(token: str) -> str:
    """A key as a part of a JSON pointer (RFC 6901, section 3): "~" is written "~0" and "/" is written "~1"."""
    return token.replace("~", "~0").replace("/", "~1")


def unescape(token: str) -> str:
    """The inverse of `escape`. The order matters: "~01" is "~1", not "/"."""
    return token.replace("~1", "/").replace("~0", "~")


def map_changes(path: str, before: Mapping[str, str] | None, changes: Mapping[str, str]) -> tuple[Operation, ...]:
    """The operations that set the keys of `changes` in the map at `path`.

    `before` is the map as it is, None where there is no map yet. A key that already has its value needs no operation.
    """
    present = before or {}
    operations: list[Operation] = []
    for key, value in changes.items():
        if value != present.get(key):
            kind = "replace" if key in present else "add"
            operations.append({"op": kind, "path": f"{path}/{escape(key)}", "value": value})
    if operations and before is None:
        operations.insert(0, {"op": "add", "path": path, "value": {}})
    return tuple(operations)
