from typing import Any
def measure(*, quick: bool) -> dict[str, Any]:
    return {}
