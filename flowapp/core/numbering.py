"""Process-local numbers for texts that recur. A number never leaves the process: not into an output, a sort or a state row."""

from __future__ import annotations

import threading

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from flowapp.records.identity import parse_contract

Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

ATTRIBUTES = ("option_contract_id", "underlying_id", "root", "expiry", "option_type")
_MAX_CHUNKS = 8


class Numbering:
    """Numbers of one kind of text; equal texts get equal numbers for as long as the process lives."""

    def __init__(self, name: str) -> None:
        self._kind = pl.Categorical(pl.Categories(name, "flowapp"))
        # Polars forgets a numbering that no column uses.
        self._anchor = pl.Series([""], dtype=pl.String).cast(self._kind)

    def expression(self, texts: pl.Expr) -> pl.Expr:
        """Return the numbers of a column; null counts as the empty text."""
        return texts.fill_null("").cast(self._kind).to_physical().cast(pl.Int64)

    def of(self, texts: pl.Series) -> Integers:
        """Return the numbers of texts."""
        return texts.to_frame("text").select(self.expression(pl.col("text"))).to_series().to_numpy()


class Contracts:
    """Contract attributes: numbers of contract ids, and of the distinct sets of texts that prints carry with them.

    Nearly always an id comes with one set of attributes; a 64-bit hash tells when it does not.
    """

    def __init__(self) -> None:
        self.ids = Numbering("contracts")
        self._lock = threading.Lock()
        self._number: dict[tuple[str | None, ...], int] = {}
        self._packed: list[msgspec.Raw] = []
        self._texts = pl.DataFrame(schema=dict.fromkeys(ATTRIBUTES, pl.String))
        self._usual = np.full(1, -1, np.int64)
        self._hash = np.zeros(1, np.uint64)
        self._parses = np.zeros(1, np.bool_)

    def hashes(self) -> pl.Expr:
        """Return an expression that hashes a print's attributes."""
        return pl.struct(ATTRIBUTES).hash()

    def attributes(self, frame: pl.DataFrame, ids: Integers, hashes: npt.NDArray[np.uint64]) -> Integers:
        """Return the number of every row's set of attributes; `ids` are the numbers of its contract id."""
        with self._lock:
            self._grow(int(ids.max(initial=0)) + 1)
            unseen = np.flatnonzero(self._usual[ids] < 0)
            if unseen.size:
                found, places = np.unique(ids[unseen], return_index=True)
                places = unseen[places]
                self._usual[found] = self._learn(frame, places)
                self._hash[found] = hashes[places]
                self._parses[found] = [parse_contract(text) is not None for text in frame["option_contract_id"][places].to_list()]
            numbers = self._usual[ids]
            unusual = np.flatnonzero(self._hash[ids] != hashes)
            if unusual.size:
                numbers[unusual] = self._learn(frame, unusual)
            return numbers

    def parses(self, ids: Integers) -> Flags:
        """Tell for every row whether its contract id, whose number is given, is a contract."""
        return self._parses[ids]

    def of(self, texts: pl.DataFrame) -> Integers:
        """Return the numbers of sets of attributes."""
        with self._lock:
            return np.array(self._learn(texts, np.arange(texts.height)), np.int64)

    def texts(self, numbers: Integers) -> pl.DataFrame:
        """Return the attributes of numbers."""
        return self._texts[numbers]

    def contract_ids(self, numbers: Integers) -> pl.Series:
        """Return the contract ids of numbers."""
        return self._texts.select("option_contract_id")[numbers].to_series()

    def packed(self, numbers: Integers) -> list[msgspec.Raw]:
        """Return the attributes of numbers, each as an encoded array of texts."""
        packed = self._packed
        return [packed[number] for number in numbers.tolist()]

    def _grow(self, size: int) -> None:
        missing = size - self._usual.size
        if missing > 0:
            room = max(missing, self._usual.size)
            self._usual = np.append(self._usual, np.full(room, -1, np.int64))
            self._hash = np.append(self._hash, np.zeros(room, np.uint64))
            self._parses = np.append(self._parses, np.zeros(room, np.bool_))

    def _learn(self, frame: pl.DataFrame, places: Integers) -> list[int]:
        rows = frame.select(ATTRIBUTES)[places].rows()
        fresh = [row for row in dict.fromkeys(rows) if row not in self._number]
        if fresh:
            self._number |= {row: len(self._packed) + place for place, row in enumerate(fresh)}
            texts = self._texts.vstack(pl.DataFrame(fresh, schema=self._texts.schema, orient="row"))
            self._texts = texts.rechunk() if texts.n_chunks() > _MAX_CHUNKS else texts
            self._packed += [msgspec.Raw(msgspec.msgpack.encode(row)) for row in fresh]
        return [self._number[row] for row in rows]


CONTRACTS = Contracts()
VENUES = Numbering("venues")
RUNS = Numbering("runs")
