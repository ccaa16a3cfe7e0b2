"""Identity of records: ids from content or source position, contract ids, canonical bytes and their hash.

Raw ids name the place in the source: `<feed>-<run>-<kind>-<seq>` live, `<feed>-<file sha8>-<kind>-<row>` for files,
`synthetic-<seed>-<profile>-<kind>-<n>`. Derived ids come from content alone (reference 2.2).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import polars as pl

from flowapp.records.canonical import CanonicalHash, Conflict, canonical_bytes, canonical_hash
from flowapp.records.contracts import Contract, contract_id, contract_table, parse_contract, strike_text
from flowapp.records.rounding import (
    fixed_text,
    number_text,
    number_texts,
    round2,
    round2_array,
    round4,
    round4_array,
    round_expr,
    round_series,
)

__all__ = [
    "EQUITY_PRINT",
    "EQUITY_QUOTE",
    "OPTION_NBBO",
    "OPTION_PRINT",
    "CanonicalHash",
    "Conflict",
    "Contract",
    "alert_id",
    "candle_id",
    "canonical_bytes",
    "canonical_hash",
    "classifier_hit_id",
    "contract_id",
    "contract_table",
    "dark_block_id",
    "dark_id",
    "dead_letter_id",
    "equity_join_id",
    "file_id",
    "file_sha8",
    "fixed_text",
    "late_packet_id",
    "live_id",
    "number_text",
    "number_texts",
    "packet_id",
    "parse_contract",
    "round2",
    "round2_array",
    "round4",
    "round4_array",
    "round_expr",
    "round_series",
    "source_dead_letter_id",
    "strike_text",
    "structure_packet_id",
    "synthetic_id",
]

OPTION_PRINT, OPTION_NBBO, EQUITY_PRINT, EQUITY_QUOTE = "op", "on", "ep", "eq"

# A text gives a text, an expression gives an expression.
Text = TypeVar("Text", str, pl.Expr)


def live_id(feed: str, run: str, kind: str, seq: pl.Expr) -> pl.Expr:
    """Return the ids of live records."""
    return pl.format(f"{feed}-{run}-{kind}-{{}}", seq)


def file_id(feed: str, sha8: str, kind: str, row: pl.Expr) -> pl.Expr:
    """Return the ids of a file's records."""
    return pl.format(f"{feed}-{sha8}-{kind}-{{}}", row)


def synthetic_id(seed: int, profile: str, kind: str, number: pl.Expr) -> pl.Expr:
    """Return the ids of synthetic records; `number` is the generator's event number."""
    return pl.format(f"synthetic-{seed}-{profile}-{kind}-{{}}", number)


def packet_id(contract: Text, start_ts: Text | int, end_ts: Text | int) -> Text:
    """Return the id of a contract packet."""
    return _format("flowpacket:{}:{}:{}", contract, start_ts, end_ts)


def late_packet_id(contract: Text, start_ts: Text | int, end_ts: Text | int, tick_offset: Text | int) -> Text:
    """Return the id of a packet of late arrivals, closed by the tick at `tick_offset`."""
    return _format("flowpacket:{}:{}:{}:late:{}", contract, start_ts, end_ts, tick_offset)


def structure_packet_id(root: str, earliest_expiry: str, structure: str, bucket_start: int, contracts: Iterable[str]) -> str:
    """Return the id of a structure packet."""
    return f"flowpacket:{root}-{earliest_expiry}-STRUCT-{structure}:{bucket_start}:{'|'.join(sorted(contracts))}"


def classifier_hit_id(classifier: str, packet: Text) -> Text:
    """Return the id of a rule's hit on a packet."""
    return _format(f"classifier:{classifier}:{{}}", packet)


def alert_id(packet: Text) -> Text:
    """Return the id of the alert that its first packet raised."""
    return _format("alert:{}", packet)


def equity_join_id(print_id: Text) -> Text:
    """Return the id of an equity print with its quote."""
    return _format("equityjoin:{}", print_id)


def dark_block_id(join: Text) -> Text:
    """Return the id of an absorbed block."""
    return _format("dark:absorbed_block:{}", join)


def dark_id(kind: str, underlying: Text, ts: Text | int) -> Text:
    """Return the id of a stealth accumulation or a distribution."""
    return _format(f"dark:{kind}:{{}}:{{}}", underlying, ts)


def candle_id(underlying: Text, interval_ms: int, start_ts: Text | int) -> Text:
    """Return the id of a candle."""
    return _format("candle:{}:{}:{}", underlying, interval_ms, start_ts)


def dead_letter_id(topic: str, partition: int, offset: int) -> str:
    """Return the id of a record that was refused after it had been written."""
    return f"{topic}:{partition}:{offset}"


def source_dead_letter_id(source: str, sha8: str, row: int) -> str:
    """Return the id of a row that was refused at the edge."""
    return f"{source}:{sha8}:{row}"


def file_sha8(path: Path) -> str:
    """Return the first 8 hex digits of a file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:8]


def _format(pattern: str, first: Text, *others: Text | int) -> Text:
    if isinstance(first, str):
        return pattern.format(first, *others)
    return pl.format(pattern, *(part if isinstance(part, pl.Expr) else pl.lit(part) for part in (first, *others)))
