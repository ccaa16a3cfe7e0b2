"""The worker listens on its loopback metrics port and on nothing else."""

import urllib.request
from collections.abc import Iterator

import psutil
import pytest

from flowapp.settings import Settings
from tests.conftest import Running
from tests.mocks.stack import Stack, namespaced
from tests.waiting import eventually


@pytest.fixture
def stack(stack_settings: Settings, broker: Running, registry: Running, schemas_of_session: None) -> Iterator[Stack]:
    yield from namespaced(stack_settings)


def test_the_worker_listens_on_nothing_but_its_loopback_metrics_port(stack: Stack) -> None:
    # Not even when Faust's web server is asked for.
    worker = stack.start(words=("--with-web", "--web-host", "0.0.0.0"))
    eventually(worker.ready)
    stack.feed(1_000)
    stack.wait_applied()
    listening = {c.laddr for c in psutil.Process(worker.pid).net_connections("inet") if c.status == psutil.CONN_LISTEN}
    assert listening == {("127.0.0.1", worker.settings.metrics_port)}

    with urllib.request.urlopen(f"http://127.0.0.1:{worker.settings.metrics_port}/metrics", timeout=10) as answer:
        figures = dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if not line.startswith("#"))
    ends = stack.ends()
    assert float(figures['flow_records_total{agent="options"}']) == sum(ends)
    for partition, end in enumerate(ends):
        assert float(figures[f'flow_applied_offset{{agent="options",partition="{partition}"}}']) == end - 1
        assert float(figures[f'flow_lag_records{{agent="options",partition="{partition}"}}']) == 0
    assert worker.stop() == 0
