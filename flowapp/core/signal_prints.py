"""Prints that passed the signal filter by themselves, as records."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import polars as pl

from flowapp.core import prints
from flowapp.core.fold import OFFSET, PARTITION
from flowapp.core.rules import OptionRules
from flowapp.records.schemas import frame_schema

SCHEMA = frame_schema("SignalPrint")
_COPIED = [name for name in frame_schema("OptionPrint") if name != "config"]
_ORIGIN = {PARTITION: "origin_partition", OFFSET: "origin_offset"}
_LEAST_CONSTANTS = 256


def signal_frame(frame: pl.DataFrame, rises: np.ndarray[tuple[int], np.dtype[np.bool_]] | None, rules: OptionRules) -> pl.DataFrame:
    """Return the signal prints among judged rows; `rises` tells which of them count (None: all)."""
    passed = (frame[prints.PREFIX + "flags"].to_numpy() & prints.PASS) != 0
    if rises is not None:
        passed &= rises
    places = np.flatnonzero(passed)
    wanted = frame[[*_COPIED, *_ORIGIN]]
    chosen = wanted[places] if 2 * places.size < wanted.height else wanted.filter(pl.Series(passed))
    constants = _constants(rules.rules.name, rules.config, max(places.size, _LEAST_CONSTANTS).bit_length())
    return chosen.rename(_ORIGIN).hstack(constants[: places.size])[SCHEMA.names()]


@lru_cache(maxsize=16)
def _constants(rules: str, config: str, size: int) -> pl.DataFrame:
    """Columns that are the same in every signal print, 2^size rows of them."""
    values = {"rules": rules, "config": config}
    made = (*_COPIED, *_ORIGIN.values())
    columns = [pl.Series(name, [values.get(name)], kind) for name, kind in SCHEMA.items() if name not in made]
    return pl.DataFrame([column.new_from_index(0, 1 << size) for column in columns])
