"""When parent orders run: slots, bursts and ticks, all in closed form.

A run of a burst takes a slot; slots are spread evenly over the ticks. Slots are dealt to lanes in turn, and in its lane
a burst takes its runs one after the other, so they come about a second apart at any rate (reference 17.4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from flowapp.simulator.dice import Dice, Ints, Stream, below

TICK_MS = 1000
DENSITY_SHIFT = 20
RUN_STEP = 23
"""A burst's runs are pickInt(run range, 23 k)."""


@dataclass(frozen=True)
class Slots:
    """Slots in order, with the burst each belongs to and the burst's first slot."""

    slot: Ints
    burst: Ints
    first_slot: Ints


class Schedule:
    """Map ticks to slots and slots to bursts."""

    def __init__(self, dice: Dice, runs: tuple[int, int], slots_per_tick: float) -> None:
        self._dice = dice
        self._density = max(1, round(slots_per_tick * (1 << DENSITY_SHIFT)))
        self.slots_per_tick = slots_per_tick
        self.lanes = max(1, math.ceil(slots_per_tick))
        self._width = runs[1] - runs[0] + 1
        lengths = [[runs[0] + (RUN_STEP * k + phase) % self._width for k in range(self._width)] for phase in range(self._width)]
        self._cycle = sum(lengths[0])
        self._order: Ints = np.array([[k for k, n in enumerate(row) for _ in range(n)] for row in lengths], dtype=np.int64)
        self._first: Ints = np.array([[sum(row[:k]) for k, n in enumerate(row) for _ in range(n)] for row in lengths], dtype=np.int64)

    def slots_before(self, tick: int) -> int:
        """Count the slots of all ticks before one."""
        return (max(tick, 0) * self._density) >> DENSITY_SHIFT

    def tick_of(self, slot: Ints) -> Ints:
        """Return the tick of each slot."""
        return -((-(slot + 1) << DENSITY_SHIFT) // self._density) - 1

    def between(self, first_tick: int, end_tick: int) -> Slots:
        """Return the slots of ticks `first_tick` to `end_tick` - 1."""
        slot = np.arange(self.slots_before(first_tick), self.slots_before(end_tick), dtype=np.int64)
        lane, step = slot % self.lanes, slot // self.lanes
        phase = below(self._dice.roll(Stream.PHASE, lane), self._width)
        cycle, place = step // self._cycle, step % self._cycle
        burst = cycle * self._width + self._order[phase, place]
        first = step - place + self._first[phase, place]
        return Slots(slot, burst * self.lanes + lane, first * self.lanes + lane)
