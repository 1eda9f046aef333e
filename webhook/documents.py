"""Kubernetes objects in a text of JSON or YAML, and the templates of Pods in them: what `webhook review` reads."""

import json
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from webhook.common.contract import Direction, quoted

# As in go-yaml, which `kubectl` uses: PyYAML requires a point and a signed exponent, and reads 1.5e8 as a text.
_FLOAT: Final = re.compile(r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9][0-9_]*)?$")


class Unreadable(ValueError):  # noqa: N818 - it names the input
    """Input that holds nothing to review, or cannot be read."""


@dataclass(frozen=True, slots=True)
class Templates:
    """What an object says of Pods that others make of it, each with its path in the object, in the object's order."""

    of_pods: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    astray: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """Limits that are of no template and of no Pod, by annotation."""


def objects(text: bytes) -> list[dict[str, Any]]:
    """The objects of all documents, also those in Lists, as the API server stores them. Raises Unreadable."""
    try:
        return [_as_stored(found) for document in _load(text) for found in _flat(document)]
    except RecursionError as error:
        raise Unreadable("standard input is nested too deeply") from error


def templates(document: Mapping[str, Any]) -> Templates:
    """The templates of a workload's Pods, and where in it they are, which custom resources choose for themselves.

    A `spec.containers` of the object's own is none: there, operators' objects have containers to add to Pods. With
    YAML's aliases an object can contain itself, so each is looked at once.
    """
    found, ahead, seen = Templates(), deque[tuple[str, Any]]([("", document)]), set[int]()
    while ahead:
        path, value = ahead.popleft()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, list):
            ahead.extend((f"{path}[{index}]", item) for index, item in enumerate(value))
        elif isinstance(value, dict):
            if path and isinstance(value.get("spec"), dict) and "containers" in value["spec"]:
                # A template needs no metadata, and no Pod takes a name in it.
                metadata = {} if (metadata := value.get("metadata")) is None else metadata
                found.of_pods.append((path, _as_stored({**value, "metadata": metadata})))
            elif path.lower().endswith("annotations") and (limits := _limits(value)):
                found.astray.append((path, limits))
            else:
                ahead.extend((f"{path}.{key}".lstrip("."), item) for key, item in value.items())
    return found


def _load(text: bytes) -> Sequence[Any]:
    """The documents of a text, JSON or YAML."""
    try:
        return [json.loads(text)]
    except ValueError:
        pass  # then it is YAML, or nothing
    try:
        import yaml  # noqa: PLC0415 - not needed for JSON, as in the API server's audit logs
    except ImportError as error:
        raise Unreadable(
            "standard input is no JSON, and to read YAML this Python lacks PyYAML: install it (Debian: python3-yaml; "
            "pip: pyyaml), or give JSON, as `kubectl ... -o json` writes it"
        ) from error

    class Loader(yaml.SafeLoader):
        """YAML 1.1 as `kubectl` reads it: 1e8 and 1.5e8 are numbers, a date, a time and "=" are texts."""

    def as_written(loader: Loader, node: yaml.ScalarNode) -> Any:
        return loader.construct_scalar(node)

    def number(loader: Loader, node: yaml.ScalarNode) -> Any:
        # 1:30 is 90 in YAML 1.1 (base 60), which go-yaml does not implement.
        return node.value if ":" in node.value else yaml.SafeLoader.yaml_constructors[node.tag](loader, node)

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, [*"-+.0123456789"])
    for tag in ("timestamp", "value"):
        Loader.add_constructor(f"tag:yaml.org,2002:{tag}", as_written)
    for tag in ("int", "float"):
        Loader.add_constructor(f"tag:yaml.org,2002:{tag}", number)
    try:
        return [_as_json(document, {}) for document in yaml.load_all(text, Loader=Loader)]
    # PyYAML's own errors, and those of its constructors for a value that is not what its tag says (0x_, !!bool maybe).
    except (yaml.YAMLError, ValueError, LookupError) as error:
        raise Unreadable(f"standard input is neither JSON nor YAML: {' '.join(str(error).split())}") from error


def _as_json(value: Any, done: dict[int, Any]) -> Any:
    """A YAML value with texts for keys, as `kubectl` makes of it. What YAML's aliases share stays shared."""
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, dict):
        entries = done[id(value)] = {}
        entries.update({_key(key): _as_json(item, done) for key, item in value.items()})
        return entries
    if isinstance(value, list):
        items = done[id(value)] = []
        items.extend(_as_json(item, done) for item in value)
        return items
    return value


def _key(key: Any) -> str:
    return key if isinstance(key, str) else json.dumps(key, default=str)


def _flat(document: Any) -> Iterator[dict[str, Any]]:
    """The objects of a document, in its order. A List that YAML's aliases repeat is taken once: they grow fast."""
    seen: set[int] = set()
    ahead = [document]
    while ahead:
        found = ahead.pop()
        if found is None or id(found) in seen:
            continue
        kind = found.get("kind") if isinstance(found, dict) else None
        if not isinstance(kind, str):
            raise Unreadable("this is not a Kubernetes object: it has no `kind`")
        items = found.get("items")
        if isinstance(items, list) and (kind == "List" or (kind.endswith("List") and all(map(_is_object, items)))):
            seen.add(id(found))
            # The items of a list that the API server sent have no kind of their own.
            of = {"apiVersion": found.get("apiVersion"), "kind": kind.removesuffix("List")} if kind != "List" else {}
            ahead.extend(
                {**of, **each} if isinstance(each, dict) and "kind" not in each else each for each in items[::-1]
            )
        elif kind == "List":
            raise Unreadable(f"kind is {quoted(kind)}: expected objects of Kubernetes, or a List of them")
        else:
            yield found


def _is_object(item: Any) -> bool:
    return item is None or isinstance(item, dict)


def _as_stored(found: dict[str, Any]) -> dict[str, Any]:
    """An object or a template: annotations and labels without a value are empty texts in the API server.

    Kubernetes' decoder does so (kubernetes/kubernetes#129176); templates that render to nothing leave such.
    """
    if not isinstance(metadata := found.get("metadata"), dict):
        return found
    maps = {key: _filled(metadata[key]) for key in ("annotations", "labels") if isinstance(metadata.get(key), dict)}
    return {**found, "metadata": {**metadata, **maps}}


def _limits(annotations: Mapping[str, Any]) -> dict[str, Any]:
    names = (each.annotation for each in Direction)
    return _filled({name: annotations[name] for name in names if name in annotations})


def _filled(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: "" if value is None else value for key, value in values.items()}
