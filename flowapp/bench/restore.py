"""How fast state comes back from the changelog."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from flowapp.bench.measure import Figure
from flowapp.bench.nothing import NothingFold
from flowapp.bench.rig import Rig
from flowapp.core.fold import Result
from flowapp.engine.partition import Partition
from flowapp.settings import Settings

ROWS = 400_000
ROW_BYTES = 256
TRANSACTION_ROWS = 10_000


def restore_figure(rig: Rig, scale: float) -> list[Figure]:
    """Write 400 thousand rows through checkpoints, wipe the disk, and take all partitions over again."""
    rows = max(TRANSACTION_ROWS * rig.settings.topic_partitions, int(ROWS * scale))
    with rig.namespace("restore") as settings:
        folder = settings.home / settings.namespace / "restore"
        numbers = range(settings.topic_partitions)
        with ThreadPoolExecutor(len(numbers)) as pool:
            list(pool.map(lambda number: _fill(settings, folder, number, rows // len(numbers)), numbers))
            shutil.rmtree(folder)
            partitions = [_partition(settings, folder, number) for number in numbers]
            began = time.monotonic()
            list(pool.map(Partition.open, partitions))
            seconds = time.monotonic() - began
            restored = sum(partition.restored_rows for partition in partitions)
            list(pool.map(Partition.close, partitions))
    detail = {"row_bytes": ROW_BYTES, "includes": "fencing the old owner"}
    return [Figure("restore", "rows/s", restored / seconds, 300_000, records=restored, seconds=seconds, detail=detail)]


def _partition(settings: Settings, folder: Path, number: int) -> Partition:
    return Partition(settings.bootstrap, settings.namespace, NothingFold(), number, folder)


def _fill(settings: Settings, folder: Path, number: int, rows: int) -> None:
    partition = _partition(settings, folder, number)
    partition.open()
    for start in range(0, rows, TRANSACTION_ROWS):
        count = min(TRANSACTION_ROWS, rows - start)
        changed = {b"row-%08d" % (start + i): (b"%08d" % (start + i)) * (ROW_BYTES // 8) for i in range(count)}
        partition.state.merge(Result(changed=changed))
        partition.commit(partition.cut(clean=True))
    partition.close()
