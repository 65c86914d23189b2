"""Figures for Prometheus; no text and no label is in them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class ServerMetrics:
    """The figures of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("entailor_requests", "Requests.", ("route", "method", "status"), registry=self.registry)
        self.latency = Histogram(
            "entailor_request_seconds", "Time to answer.", ("route",), buckets=SECONDS, registry=self.registry
        )
        self.inputs = Counter("entailor_inputs", "Inputs classified.", ("model",), registry=self.registry)
        self.abstained = Counter("entailor_abstained", "Inputs without a label.", ("model",), registry=self.registry)
        self.batch_inputs = Histogram(
            "entailor_batch_inputs",
            "Inputs of a batch.",
            buckets=[2**power for power in range(11)],
            registry=self.registry,
        )
        self.batch_seconds = Histogram(
            "entailor_batch_seconds", "Time of a batch.", buckets=SECONDS, registry=self.registry
        )
        self.queue = Gauge("entailor_queue_inputs", "Inputs that wait.", registry=self.registry)
        self.models = Gauge("entailor_models", "Classifiers served.", registry=self.registry)

    def batch(self, inputs: int, seconds: float, tokens: int) -> None:
        """Note a batch."""
        self.batch_inputs.observe(inputs)
        self.batch_seconds.observe(seconds)
