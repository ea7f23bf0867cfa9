"""What the service tells Prometheus. Each application has a registry of its own."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from .queues import Options

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60)


class Metrics:
    """Counters and histograms, and the middleware that fills those about requests."""

    def __init__(self, waiting: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter("featherflow_requests", "Requests answered", ["path", "status"], registry=self.registry)
        self._seconds = Histogram(
            "featherflow_request_seconds",
            "From the first byte of a request to the last of its answer",
            ["path"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._estimates = Histogram(
            "featherflow_estimate_seconds", "Time of estimation for each pair", ["model"], buckets=_SECONDS, registry=self.registry
        )
        self._batches = Histogram(
            "featherflow_batch_pairs", "Pairs estimated together", buckets=(1, 2, 4, 8, 16), registry=self.registry
        )
        gauge = Gauge("featherflow_waiting_pairs", "Pairs in the queue", registry=self.registry)
        gauge.set_function(waiting)

    def observe_batch(self, options: Options, pairs: int, seconds: float) -> None:
        self._batches.observe(pairs)
        for _ in range(pairs):
            self._estimates.labels(options.model).observe(seconds / pairs)

    def text(self) -> bytes:
        return generate_latest(self.registry)

    def wrap(self, app):
        """ASGI middleware that counts and times requests by route."""

        async def measured(scope, receive, send) -> None:
            if scope["type"] != "http":
                return await app(scope, receive, send)
            started, status = time.perf_counter(), 500

            async def watch(message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                await send(message)

            try:
                await app(scope, receive, watch)
            finally:
                # The route, not the address: strangers must not be able to make up labels.
                path = getattr(scope.get("route"), "path", "other")
                self._requests.labels(path, status).inc()
                self._seconds.labels(path).observe(time.perf_counter() - started)

        return measured
