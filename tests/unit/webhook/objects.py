"""What the webhook is asked: a Pod as people write it, and the AdmissionReview that an API server sends for it."""

from typing import Any


def pod(annotations: dict[str, str] | None = None, **metadata: Any) -> dict[str, Any]:
    if annotations is not None:
        metadata["annotations"] = annotations
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "cart", **metadata}, "spec": {"containers": []}}


def review_of(
    obj: dict[str, Any] | None, *, old: dict[str, Any] | None = None, operation: str = "CREATE", **more: Any
) -> dict[str, Any]:
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": "shop",
            "operation": operation,
            "object": obj,
            "oldObject": old,
            **more,
        },
    }
