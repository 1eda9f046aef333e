"""RFC 6902 as far as admission uses it, apart from the code under test: what the API server makes of a patch."""

import copy
from typing import Any


def applied(patch: list[dict[str, Any]], document: dict[str, Any]) -> dict[str, Any]:
    result = copy.deepcopy(document)
    for operation in patch:
        *path, key = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
        parent = result
        for part in path:
            parent = parent[part]
        if operation["op"] == "replace":
            del parent[key]  # fails where there is nothing, as the RFC has it
        parent[key] = operation["value"]
    return result
