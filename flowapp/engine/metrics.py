"""What a worker counts, once per batch, and shows on its loopback port."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from flowapp.errors import PortTaken

LOOPBACK = "127.0.0.1"


class Metrics:
    """Counters of one worker, by agent."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.records = Counter("flow_records", "records read", ["agent"], registry=registry)
        self.record_bytes = Counter("flow_record_bytes", "bytes of the values read", ["agent"], registry=registry)
        self.batches = Counter("flow_batches", "batches folded, a batch being one poll of all partitions", ["agent"], registry=registry)
        self.outputs = Counter("flow_outputs", "records sent", ["agent", "topic"], registry=registry)
        self.output_bytes = Counter("flow_output_bytes", "bytes of the values sent", ["agent", "topic"], registry=registry)
        self.dead_letters = Counter("flow_dead_letters", "records refused", ["agent", "stage"], registry=registry)
        self.checkpoints = Counter("flow_checkpoints", "checkpoints of a partition committed", ["agent"], registry=registry)
        self.checkpoint_rows = Counter("flow_checkpoint_rows", "state rows written by checkpoints", ["agent"], registry=registry)
        self.checkpoint_bytes = Counter("flow_checkpoint_bytes", "bytes of state rows written", ["agent"], registry=registry)
        self.restored_rows = Counter("flow_restored_rows", "state rows restored from changelogs", ["agent"], registry=registry)
        self.assignments = Counter("flow_assignments", "times partitions were taken over", ["agent"], registry=registry)
        self.seconds = Counter("flow_stage_seconds", "seconds spent, by stage", ["agent", "stage"], registry=registry)
        self.lag = Gauge("flow_lag_records", "records not yet applied", ["agent", "partition"], registry=registry)
        self.offset = Gauge("flow_applied_offset", "last applied offset", ["agent", "partition"], registry=registry)
        self.queued = Gauge("flow_producer_queue_records", "records sent and not yet delivered", registry=registry)

    @contextmanager
    def stage(self, agent: str, stage: str) -> Iterator[None]:
        """Count the seconds of a `with` block under a stage."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds.labels(agent, stage).inc(time.perf_counter() - begun)

    def serve(self, port: int) -> None:
        """Serve the figures on a loopback port.

        Raises:
            PortTaken: somebody else listens there.
        """
        try:
            start_http_server(port, addr=LOOPBACK, registry=self.registry)
        except OSError as error:
            raise PortTaken(f"port {port} of {LOOPBACK}, for the worker's metrics, is taken; set WORKER_ID or FLOW_PORT_OFFSET") from error
