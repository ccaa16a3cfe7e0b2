"""A small recorded file, made up: fills of one option at the ask, half a second and more apart."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

HEADER = (
    "symbol,expiration,strike,right,trade_timestamp,quote_timestamp,sequence,ext_condition1,ext_condition2,ext_condition3,ext_condition4,"
    "condition,size,exchange,price,bid_size,bid_exchange,bid,bid_condition,ask_size,ask_exchange,ask,ask_condition"
)
START = datetime(2024, 6, 14, 14, 0, tzinfo=UTC)
STEP = timedelta(seconds=2)


def write_tape(path: Path, prints: int) -> None:
    """Write so many prints in the ThetaData trade-with-quote form, two seconds apart."""
    rows = [HEADER]
    for number in range(prints):
        trade = (START + number * STEP).isoformat(sep=" ", timespec="milliseconds")
        quote = (START + number * STEP - timedelta(milliseconds=40)).isoformat(sep=" ", timespec="milliseconds")
        rows.append(f"XYZ,2024-06-21,500.0,CALL,{trade},{quote},{number + 1},255,255,255,255,18,100,6,5.10,10,5,5.00,50,10,5,5.10,50")
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
