"""What the webhook counts, for Prometheus, in a registry of its own."""

import math
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from webhook.common.version import REVISION, VERSION

# The reason of errors by which Pods are refused because their Namespace cannot be read. An alert is on this reason, not
# on a status, as strangers' requests get the same statuses.
NO_DECISION: Final = "NoDecision"
# An admission takes well under a millisecond, or else it waits for a GET of the Namespace.
_BUCKETS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Metrics:
    """The webhook's counters and gauges."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        Gauge(
            "ipvlan_bandwidth_build_info", "1 for what runs.", ["version", "revision"], registry=self.registry
        ).labels(VERSION, REVISION).set(1)
        self._admissions = Counter(
            "ipvlan_bandwidth_admissions",
            "Admission requests by operation, outcome (allowed, mutated, refused, error) and reason, which of an error "
            "is the HTTP status, or NoDecision where the Namespace cannot be read. A Pod refused for several reasons "
            "counts under each.",
            ["operation", "outcome", "reason"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "ipvlan_bandwidth_admission_duration_seconds",
            "Time from a whole admission request to its answer.",
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        self._expiry = Gauge(
            "ipvlan_bandwidth_certificate_expiry_timestamp_seconds",
            "When the certificate that is served expires, in seconds since 1970.",
            registry=self.registry,
        )
        self._authority_expiry = Gauge(
            "ipvlan_bandwidth_ca_expiry_timestamp_seconds",
            "When the CA that signs expires, in seconds since 1970; NaN where others issue the certificate.",
            registry=self.registry,
        )
        self.certificates_kept = Gauge(
            "ipvlan_bandwidth_certificates_kept",
            "1 if the last check found certificates and caBundle as they should be, or mended them, 0 if it failed; "
            "NaN before the first, and where others issue the certificate.",
            registry=self.registry,
        )
        for unknown in (self._expiry, self._authority_expiry, self.certificates_kept):
            unknown.set(math.nan)  # 0 would be a certificate that has expired, or a check that failed
        self._loads = Counter(
            "ipvlan_bandwidth_certificate_loads",
            "How often this replica began to serve with another certificate.",
            registry=self.registry,
        )
        self._changes = Counter(
            "ipvlan_bandwidth_certificate_changes",
            "What this replica did to the certificates that all replicas share, and to the caBundle, by change.",
            ["change"],
            registry=self.registry,
        )
        self.watch_restarts = Counter(
            "ipvlan_bandwidth_namespace_watch_restarts",
            "Times that the watch on Namespaces was started again, also after nothing happened for long.",
            registry=self.registry,
        )
        self.watch_connected = Gauge(
            "ipvlan_bandwidth_watch_connected",
            "1 while the API server tells of Namespaces.",
            registry=self.registry,
        )
        self.ready = Gauge(
            "ipvlan_bandwidth_webhook_ready",
            "1 while this replica wants to be asked.",
            registry=self.registry,
        )

    def admitted(self, operation: str, outcome: str, reasons: tuple[str, ...], seconds: float) -> None:
        """Count one answered request."""
        for reason in reasons or ("",):
            self._admissions.labels(operation, outcome, reason).inc()
        self._seconds.observe(seconds)

    def failed(self, reason: str) -> None:
        """Count a request that was answered with an error; its operation may be unknown."""
        self._admissions.labels("", "error", reason).inc()

    def serves_with(self, expires_s: float) -> None:
        """Record that another certificate is served, and when it expires, in seconds since 1970."""
        self._expiry.set(expires_s)
        self._loads.inc()

    def trusts(self, authority_expires_s: float) -> None:
        """Record when the CA that signs expires, in seconds since 1970."""
        self._authority_expiry.set(authority_expires_s)

    def certificates_changed(self, change: str) -> None:
        """Count one change that this replica made to what all replicas share."""
        self._changes.labels(change).inc()
