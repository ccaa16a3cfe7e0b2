"""What is traded: numbers for contracts and underlyings, and what each is.

The numbers are this process's own and never reach a record.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from flowapp import topics
from flowapp.edge.contracts import attributes
from flowapp.edge.names import Names
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
        self._names = Names()
        self.keys: list[bytes] = []
        self.partition: Ints = np.empty(0, np.int64)

    @property
    def count(self) -> int:
        return len(self.keys)

    def numbers(self, names: pl.Series) -> Ints:
        """Return the number of each underlying, given in upper case."""
        numbers, fresh = self._names.numbers(names)
        if len(fresh):
            self.keys += [name.encode() for name in fresh]
            places = [topics.partition_of(name, self._partitions, self._placement) for name in fresh]
            self.partition = np.concatenate((self.partition, np.array(places, np.int64)))
        return numbers


class Contracts:
    """Contracts by number: what each is, and its underlying's number and hours."""

    def __init__(self, underlyings: Underlyings) -> None:
        self._underlyings = underlyings
        self._names = Names()
        self.table = pl.DataFrame(schema=CONTRACTS)
        self.underlying: Ints = np.empty(0, np.int64)
        self.hours: Ints = np.empty(0, np.int64)

    @property
    def count(self) -> int:
        return self.table.height

    def numbers(self, ids: pl.Series) -> Ints:
        """Return the number of each contract id."""
        numbers, fresh = self._names.numbers(ids)
        if len(fresh):
            self._learn(fresh)
        return numbers

    def _learn(self, ids: pl.Series) -> None:
        parsed = (
            ids.alias("option_contract_id").to_frame().join(contract_table(ids), on="option_contract_id", how="left", maintain_order="left")
        )
        rows, hours = [], []
        for contract, root, expiry, strike, right in parsed.iter_rows():
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
