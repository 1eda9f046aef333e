"""Explains a 401 or 403 of the API server: what we may not do, and the remedy."""

from __future__ import annotations

from http import HTTPStatus

from webhook.common.kubeapi import ApiError

_REMEDIES = {
    HTTPStatus.UNAUTHORIZED: (
        "delete the reconciler's Pod of this node, so that its successor gets a token of the service account as it is"
    ),
    HTTPStatus.FORBIDDEN: "apply the manifest's ClusterRole and binding of the reconciler",
}


def refusal(what: str, error: ApiError) -> str | None:
    """A message that we may not do `what`, why, and what to do; None for any other error."""
    for status, remedy in _REMEDIES.items():
        if error.status == status:
            return f"may not {what}: HTTP {error.status} ({error.message}): {remedy}"
    return None
