"""Bulk table store (`bulk:`), and a table manager that leaves recovery to it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from faust.stores.base import SerializedStore
from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery
from faust.types import TP

from flowapp.engine.ending import end_process
from flowapp.engine.transport import input_partitions


class Store(SerializedStore):  # type: ignore[misc]
    """Restores an agent's partitions when they are assigned; the rows themselves belong to the agent's runner."""

    async def on_rebalance(self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0) -> None:
        runner = self.app.runners[self.table.name]
        partitions = input_partitions(assigned, self.app.input_topic(runner))
        try:
            await asyncio.get_running_loop().run_in_executor(None, runner.assign, partitions, generation_id)
        except Exception as error:
            await self.app.consumer.leave_group()
            end_process(error)

    def persisted_offset(self, tp: TP) -> int | None:
        """None: a transaction's end marker takes an offset too, at which Faust's own bookkeeping stumbles."""
        return None

    def set_persisted_offset(self, tp: TP, offset: int) -> None:
        """Nothing: the offset is written with the rows it belongs to."""

    async def need_active_standby_for(self, tp: TP) -> bool:
        return False

    def reset_state(self) -> None:
        """Nothing: `flow reset` wipes state."""

    def _rows(self, *args: Any) -> Any:
        raise NotImplementedError("rows are read and written through the fold's state")

    _get = _set = _del = _iterkeys = _itervalues = _iteritems = _size = _contains = _clear = _rows
    backup_partition = restore_backup = _rows


class NoRecovery(Recovery):  # type: ignore[misc]
    """Finds nothing to recover: the store has done it by the time Faust asks."""

    def need_recovery(self) -> bool:
        return False

    async def _build_highwaters(self, consumer: Any, tps: Iterable[TP], destination: Any, title: str) -> None:
        _set_zero(destination, tps)

    async def _build_offsets(self, consumer: Any, tps: Iterable[TP], destination: Any, title: str) -> None:
        _set_zero(destination, tps)

    async def _seek_offsets(self, consumer: Any, tps: Iterable[TP], offsets: Any, title: str) -> None:
        """Nothing: changelog partitions stay paused."""


def _set_zero(destination: Any, tps: Iterable[TP]) -> None:
    # A Counter's `update` adds to what is there, which may be None.
    destination.clear()
    for tp in tps:
        destination[tp] = 0


class BulkTableManager(TableManager):  # type: ignore[misc]
    """Faust's table manager with `NoRecovery`."""

    _recovery: Recovery | None

    async def on_start(self) -> None:
        # Faust sleeps a second here, so that tables may still be added.
        await self._update_channels()
        await self.recovery.start()

    @property
    def recovery(self) -> Recovery:
        if self._recovery is None:
            self._recovery = NoRecovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery
