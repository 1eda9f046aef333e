"""The webhook's HTTPS handler, `/mutate` for API servers, and its readiness.

Of an HTTP error people see only the status, in `failed calling webhook`, except for 415 and 500, whose text is passed
on (k8s.io/apimachinery, NewGenericServerResponse). So every AdmissionReview that could be read is answered with one.
HTTP errors are for requests that no API server sends, for defects, and for evicted bodies: a request answered with 503
and `Retry-After` is repeated within the webhook's `timeoutSeconds` (k8s.io/client-go, rest/with_retry.go).
"""

import json
import logging
import time
from collections import defaultdict
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from aiohttp import web

from webhook.common.kubeapi import ApiError
from webhook.common.logs import LogRateLimiter
from webhook.common.pages import method_not_allowed, not_found
from webhook.metrics import NO_DECISION, Metrics
from webhook.namespaces import Namespaces
from webhook.policy import Policy
from webhook.request_bodies import RequestBodies, RequestError
from webhook.review import InvalidReview, Outcome, Reviewed, asked, parsed, respond, undecided

logger = logging.getLogger(__name__)


class Readiness:
    """Whether requests should be sent here, and if not why not. Each condition is unmet until `done`."""

    def __init__(self, conditions: tuple[str, ...]) -> None:
        self._waiting: dict[str, str | None] = dict.fromkeys(conditions)
        self.draining = False
        """Whether it is about to stop: from then on it is not ready, whatever is met."""

    def done(self, condition: str) -> None:
        """A condition is met, and stays so."""
        self._waiting.pop(condition, None)

    def waits(self, condition: str, why: str) -> None:
        """Note why a condition is not met yet; no effect when it was met before."""
        if condition in self._waiting:
            self._waiting[condition] = why

    @property
    def problem(self) -> str | None:
        """Why it is not ready; None when it is."""
        if self.draining:
            return "draining: this replica is about to stop"
        lines = (f"waiting for {name}" + (f": {why}" if why else "") for name, why in self._waiting.items())
        return "\n".join(lines) or None


class Admission:
    """Answers AdmissionReviews. `monotonic` gives seconds."""

    def __init__(
        self,
        namespaces: Namespaces,
        metrics: Metrics,
        readiness: Readiness,
        monotonic: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._namespaces = namespaces
        self._metrics = metrics
        self._readiness = readiness
        self._monotonic = monotonic
        self._bodies = RequestBodies()
        # One per reason, so that strangers' requests suppress no line about our own failures.
        self._failures: defaultdict[str, LogRateLimiter] = defaultdict(lambda: LogRateLimiter(monotonic))
        self._refusals = LogRateLimiter(monotonic)

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Answer one HTTPS request."""
        if request.path != "/mutate":
            return not_found(request, "/mutate")
        if request.method != "POST":
            return method_not_allowed("POST")
        response = await self._mutate(request)
        if self._readiness.draining:
            # API servers keep connections open: this sends them to another replica before this one is gone.
            response.force_close()
        return response

    async def _mutate(self, request: web.BaseRequest) -> web.Response:
        try:
            return await self._answer(request)
        except RequestError as error:
            response = self._wrong(error.status, str(error))
            # The rest of its body is not worth reading.
            response.force_close()
            return response
        except InvalidReview as error:
            return self._wrong(400, str(error))
        except Exception:
            logger.exception("defect while answering an AdmissionReview")
            return self._wrong(500, "a defect in the webhook, please report it: its log has the details")

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        body = await self._bodies.read(request)
        begun = self._monotonic()
        question = asked(parsed(body))
        # The body may take megabytes: none of it is kept while the API server is asked for the Namespace.
        del body
        try:
            policy = await self._namespaces.policy_of(question.namespace) if question.needs_policy else Policy()
        except ApiError as error:
            # A 503 does not blame the author, and controllers try again after any error.
            why = f"cannot read the Pod's Namespace just now, try again: {error}"
            self._failed(NO_DECISION, 503, why)
            return _json(undecided(question, why))
        reviewed = respond(question, policy)
        self._metrics.admitted(reviewed.operation, reviewed.outcome, reviewed.reasons, self._monotonic() - begun)
        self._log(reviewed)
        return _json(reviewed.response)

    def _wrong(self, status: int, text: str) -> web.Response:
        self._failed(str(status), status, text)
        headers = {"Retry-After": "1"} if status == HTTPStatus.SERVICE_UNAVAILABLE else None
        return web.Response(status=status, text=f"ipvlan-bandwidth: {text}", headers=headers)

    def _failed(self, reason: str, status: int, text: str) -> None:
        self._metrics.failed(reason)
        if (more := self._failures[reason].admit()) is not None:
            extra = {"reason": reason, "status": status, "error": text, **more}
            logger.warning("no decision on an AdmissionReview", extra=extra)

    def _log(self, reviewed: Reviewed) -> None:
        """One line for a refusal, if there are not too many; an admitted Pod itself shows what was changed."""
        refused = reviewed.outcome is Outcome.REFUSED
        level = logging.INFO if refused else logging.DEBUG
        if not logger.isEnabledFor(level):
            return
        more = self._refusals.admit() if refused else {}
        if more is None:
            return
        logger.log(
            level,
            "refused a Pod" if refused else "admitted a Pod",
            extra={
                "operation": reviewed.operation,
                "namespace": reviewed.namespace,
                "pod": reviewed.pod,
                "outcome": reviewed.outcome.value,
                "reasons": list(reviewed.reasons),
                "refusal": reviewed.message,
                **more,
            },
        )


def _json(review: dict[str, Any]) -> web.Response:
    return web.Response(body=json.dumps(review).encode(), content_type="application/json")
