"""What is traded: numbers for contracts and underlyings, and what each is.

The numbers are this process's own and never reach a record.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import polars as pl

from flowapp import topics
from flowapp.edge.contracts import attributes
from flowapp.edge.order import Ints
from flowapp.records.identity import contract_table

CONTRACTS = pl.Schema(
    {
        "underlying_id": pl.String, "root": pl.String, "expiry": pl.String, "strike": pl.Float64, "option_type": pl.String,
        "multiplier": pl.Int64, "adjusted": pl.Boolean, "settlement": pl.String, "expires_at": pl.Int64,
    }
)  # fmt: skip
_TYPES = {"C": "call", "P": "put"}


class Underlyings:
    """Underlyings by number: name, record key, partition."""

    def __init__(self, partitions: int, placement: tuple[tuple[str, int], ...]) -> None:
        self._partitions, self._placement = partitions, placement
        self._number: dict[str, int] = {}
        self.keys: list[bytes] = []
        self.partition: Ints = np.empty(0, np.int64)

    @property
    def count(self) -> int:
        return len(self.keys)

    def numbers(self, names: pl.Series) -> Ints:
        """Return the number of each underlying, given in upper case."""
        return _numbers(self._number, names, self._learn)

    def _learn(self, names: list[str]) -> None:
        for name in names:
            self._number[name] = len(self.keys)
            self.keys.append(name.encode())
        fresh = [topics.partition_of(name, self._partitions, self._placement) for name in names]
        self.partition = np.concatenate((self.partition, np.array(fresh, np.int64)))


class Contracts:
    """Contracts by number: what each is, and its underlying's number and hours."""

    def __init__(self, underlyings: Underlyings) -> None:
        self._underlyings = underlyings
        self._number: dict[str, int] = {}
        self.table = pl.DataFrame(schema=CONTRACTS)
        self.underlying: Ints = np.empty(0, np.int64)
        self.hours: Ints = np.empty(0, np.int64)

    @property
    def count(self) -> int:
        return len(self._number)

    def numbers(self, ids: pl.Series) -> Ints:
        """Return the number of each contract id."""
        return _numbers(self._number, ids, self._learn)

    def _learn(self, ids: list[str]) -> None:
        parsed = contract_table(pl.Series(ids, dtype=pl.String))
        rows, hours = [], []
        for contract, root, expiry, strike, right in parsed.iter_rows():
            self._number[contract] = len(self._number)
            name = (root or contract).upper()
            found = attributes(name, expiry)
            hours.append(found.hours)
            rows.append(
                (
                    found.underlying_id, name, expiry, strike, _TYPES.get(right), found.multiplier, found.adjusted if root else None,
                    found.settlement, found.expires_at,
                )
            )  # fmt: skip
        fresh = pl.DataFrame(rows, schema=CONTRACTS, orient="row")
        self.table = pl.concat([self.table, fresh], rechunk=True)
        self.underlying = np.concatenate((self.underlying, self._underlyings.numbers(fresh["underlying_id"])))
        self.hours = np.concatenate((self.hours, np.array(hours, np.int64)))


def _numbers(known: dict[str, int], names: pl.Series, learn: Callable[[list[str]], None]) -> npt.NDArray[np.int64]:
    values = names.to_list()
    try:
        return np.fromiter(map(known.__getitem__, values), np.int64, len(values))
    except KeyError:
        unknown = [name for name in dict.fromkeys(values) if name not in known]
        learn(unknown)
        return np.fromiter(map(known.__getitem__, values), np.int64, len(values))
