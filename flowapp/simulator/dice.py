"""Numbers that look random and are functions of (seed, stream, counter) alone.

A counter-based generator: any number can be had without those before it, so every tick of the market can be
computed by itself. The mixer is the finaliser of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom
number generators, OOPSLA 2014). Only integer operations and exactly rounded float operations are used in this
package, so results do not depend on the machine or on how many values are computed at once.
"""

from __future__ import annotations

from dataclasses import fields
from enum import IntEnum, unique
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Rolls = NDArray[np.uint64]

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Columns = TypeVar("Columns", bound=DataclassInstance)

ROLL_BITS, WIDE, NARROW = 64, 16, 8

_MASK = (1 << 64) - 1
_GAMMA, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_SHIFTS = (30, 27, 31)
_MANTISSA_SHIFT, _MANTISSA_STEP = 11, 2.0**-53


@unique
class Stream(IntEnum):
    """What a number is drawn for; each has its own sequence."""

    PHASE = 1
    SYMBOL = 2
    SCENARIO = 3
    EXPIRY = 4
    MONEYNESS = 5
    RIGHT = 6
    COUNT = 7
    SIZE = 8
    VENUE = 9
    PACKAGE = 10
    WORD = 11
    OFFSET = 12
    PRINT = 13
    QUOTE = 14
    CANCEL = 15
    PATH = 16
    WALK = 17
    EQUITY_SYMBOL = 18
    EQUITY_PRINT = 19
    EQUITY_QUOTE = 20
    DARK = 21
    EQUITY_PLACE = 22
    CANCELLED = 23
    UNDERLYING = 24


class Dice:
    """Draw numbers for one seed."""

    def __init__(self, seed: int) -> None:
        self._seed = _mixed(seed * _GAMMA + _GAMMA)

    def roll(self, stream: Stream, counter: Ints) -> Rolls:
        """Return 64 even bits for each counter."""
        key = np.uint64(_mixed(self._seed ^ (int(stream) * _GAMMA)))
        value = counter.astype(np.uint64)
        value *= np.uint64(_GAMMA)
        value += key
        value ^= value >> np.uint64(_SHIFTS[0])
        value *= np.uint64(_FIRST)
        value ^= value >> np.uint64(_SHIFTS[1])
        value *= np.uint64(_SECOND)
        value ^= value >> np.uint64(_SHIFTS[2])
        return value

    def one(self, stream: Stream, counter: int = 0) -> int:
        """Return one number, 63 bits."""
        return int(self.roll(stream, np.array([counter], dtype=np.int64))[0] >> np.uint64(1))


class Cut:
    """Hand out the bits of rolls as small numbers, each bit once."""

    def __init__(self, rolls: Rolls) -> None:
        self._rolls, self._used = rolls, 0

    def below(self, bound: int | Ints, width: int = WIDE) -> Ints:
        """Return 0 .. bound - 1, evenly to one part in 2^width."""
        return (self._take(width) * bound) >> width

    def share(self) -> Floats:
        """Return [0, 1) in steps of 2^-16."""
        return self._take(WIDE) / (1 << WIDE)

    def flip(self) -> Flags:
        """Return even odds."""
        heads: Flags = self._take(1) == 1
        return heads

    def _take(self, width: int) -> Ints:
        if self._used + width > ROLL_BITS:
            raise ValueError(f"a roll has {ROLL_BITS} bits, asked for {self._used + width}")
        taken = (self._rolls >> np.uint64(self._used)) & np.uint64((1 << width) - 1)
        self._used += width
        return taken.astype(np.int64)


def unit(rolls: Rolls) -> Floats:
    """Map rolls to [0, 1)."""
    return (rolls >> np.uint64(_MANTISSA_SHIFT)).astype(np.float64) * _MANTISSA_STEP


def below(rolls: Rolls, bound: int | Ints) -> Ints:
    """Map rolls to 0 .. bound - 1."""
    return (rolls % np.asarray(bound, dtype=np.uint64)).astype(np.int64)


def pick(weights: tuple[int, ...], rolls: Rolls) -> Ints:
    """Map rolls to positions in a list of weights (pickWeighted of reference 17.2)."""
    return np.searchsorted(np.cumsum(weights), below(rolls, sum(weights)), side="right").astype(np.int64)


def joined(*parts: Columns) -> Columns:
    """Put rows of dataclasses of arrays one after the other."""
    return type(parts[0])(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(parts[0])))


def _mixed(value: int) -> int:
    value &= _MASK
    value = ((value ^ (value >> _SHIFTS[0])) * _FIRST) & _MASK
    value = ((value ^ (value >> _SHIFTS[1])) * _SECOND) & _MASK
    return value ^ (value >> _SHIFTS[2])
