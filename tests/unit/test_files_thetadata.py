"""ThetaData captures, line by line, and what becomes of lines that are none. The captures are the reader's own: FLOW_TEST_DATA."""

from __future__ import annotations

import csv
import os
import shutil
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flowapp import topics
from flowapp.edge.adapters.files import open_file
from flowapp.edge.feeds import open_feeds, with_files
from flowapp.engine.producer import Sent
from flowapp.errors import SourceError
from tests.mocks.edge import decoded, memory_settings, prints, run_edge

DATA = os.environ.get("FLOW_TEST_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="FLOW_TEST_DATA does not name the folder of recorded market data")

OPTION_HEADER = (
    "symbol,expiration,strike,right,trade_timestamp,quote_timestamp,sequence,ext_condition1,ext_condition2,ext_condition3,ext_condition4,"
    "condition,size,exchange,price,bid_size,bid_exchange,bid,bid_condition,ask_size,ask_exchange,ask,ask_condition"
)
OPTION_LINE = (
    "SPY,2024-06-21,500.0,CALL,2024-06-14 09:55:03.122-04:00,2024-06-14 09:54:59.396-04:00,-5,255,255,255,255,18,10,6,41.71,"
    "431,5,41.2,50,430,5,42.09,50"
)


def capture(name: str) -> Path:
    return Path(DATA or "") / "thetadata_captures" / "decoded_csv" / name


def lines_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def through_the_edge(path: Path) -> list[Sent]:
    settings = with_files(memory_settings(), [str(path)], options=None, equities=None)
    return run_edge(settings, open_feeds(settings, None))


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def side(price: float, bid: float, ask: float) -> str:
    """The side that a quote implies, by the rule itself."""
    if bid > ask:
        return "MISSING"
    if bid == ask:
        return "MID" if price == bid else "AA" if price > ask else "BB"
    eps = min(max(0.01, 0.05 * (ask - bid)), 0.49 * (ask - bid))
    if price >= ask - eps:
        return "AA" if price > ask + eps else "A"
    if price <= bid + eps:
        return "BB" if price < bid - eps else "B"
    return "MID"


FLAGS = {
    "18": ("electronic", True, True, True, False), "95": ("sweep", True, True, True, False), "125": ("auction", True, True, True, False),
    "130": ("multi_leg", False, False, False, True), "131": ("multi_leg", False, False, False, True),
}  # fmt: skip


@needs_data
def test_every_line_of_the_option_capture_arrives_with_its_side_and_its_flags() -> None:
    lines = lines_of(capture("option_history_trade_quote.csv"))
    sent = through_the_edge(capture("option_history_trade_quote.csv"))
    rows = prints(sent, topics.OPTIONS_PRINTS).sort("seq").to_dicts()
    assert len(rows) == len(lines) == 98
    for line, row in zip(lines, rows, strict=True):
        price, bid, ask = float(line["price"]), float(line["bid"]), float(line["ask"])
        assert (row["price"], row["size"], row["source_ts"]) == (price, int(line["size"]), ms(line["trade_timestamp"]))
        assert (row["nbbo_bid"], row["nbbo_ask"], row["nbbo_ts"]) == (bid, ask, ms(line["quote_timestamp"]))
        assert (row["nbbo_bid_size"], row["nbbo_ask_size"]) == (int(line["bid_size"]), int(line["ask_size"]))
        assert row["nbbo_side"] == side(price, bid, ask)
        assert row["quote_source"] == "with_trade"
        tag, alert, sign, baseline, leg = FLAGS[line["condition"]]
        assert (row["condition_tag"], row["may_alert"], row["may_sign"], row["may_baseline"]) == (tag, alert, sign, baseline)
        assert (row["is_multi_leg"], row["conditions_unmapped"], row["conditions"]) == (leg, False, [line["condition"]])
        assert (row["option_contract_id"], row["underlying_id"], row["session"]) == ("SPY-2024-06-21-500-C", "SPY", "regular")
        assert row["spread_pos"] == pytest.approx((price - bid) / (ask - bid))
    assert sum(row["size"] for row in rows) == 682
    assert Counter(row["nbbo_side"] for row in rows).most_common(1)[0][0] == "MID"
    quotes = decoded(sent, topics.OPTIONS_NBBO)
    assert quotes.height == 98
    assert set(quotes["trace_id"]) == {row["nbbo_id"] for row in rows}


@needs_data
def test_every_line_of_the_stock_capture_arrives(tmp_path: Path) -> None:
    path = tmp_path / "AAPL_trades.csv"
    shutil.copy(capture("stock_history_trade_quote.csv"), path)
    lines = lines_of(path)
    rows = prints(through_the_edge(path), topics.EQUITIES_PRINTS).sort("seq")
    assert rows.height == len(lines) == 8192
    assert rows["price"].to_list() == [float(line["price"]) for line in lines]
    assert rows["size"].to_list() == [int(line["size"]) for line in lines]
    assert rows["source_ts"].to_list() == [ms(line["trade_timestamp"]) for line in lines]
    assert rows["off_exchange_flag"].to_list() == [line["exchange"] in ("57", "58", "59") for line in lines]
    assert rows["off_exchange_flag"].sum() == 1533
    assert rows["underlying_id"].unique().to_list() == ["AAPL"]
    assert rows["conditions_unmapped"].sum() == 0
    sides = [side(float(line["price"]), float(line["bid"]), float(line["ask"])) for line in lines]
    assert rows["nbbo_side"].to_list() == sides
    odd = [("115" in {line["condition"], *(line[f"ext_condition{i}"] for i in range(1, 5))}) for line in lines]
    assert rows["is_odd_lot"].to_list() == odd
    assert rows.filter("off_exchange_flag")["bid_low"].null_count() < 20


@needs_data
def test_a_stock_capture_that_names_no_stock_is_refused() -> None:
    with pytest.raises(SourceError, match=r"AAPL_trades\.csv"):
        open_file(str(capture("stock_history_trade_quote.csv")))


@needs_data
def test_captures_without_quotes_are_refused_by_the_columns_they_lack() -> None:
    with pytest.raises(SourceError, match="ThetaData trade-with-quote"):
        open_file(str(capture("option_history_greeks_all.csv")))


def read(path: Path) -> tuple[pl.DataFrame, list[Any]]:
    chunks = list(open_file(str(path)).chunks())
    return pl.concat([chunk.option_trades for chunk in chunks]), [refusal for chunk in chunks for refusal in chunk.refusals]


def changed(**fields: str) -> str:
    values = dict(zip(OPTION_HEADER.split(","), OPTION_LINE.split(","), strict=True)) | fields
    return ",".join(values.values())


def test_lines_that_cannot_be_prints_are_refused_with_their_bytes(tmp_path: Path) -> None:
    bad = {
        "bad_price": [changed(price="-1"), changed(price="NaN"), changed(price="dear")],
        "bad_size": [changed(size="0"), changed(size="-3"), changed(size="")],
        "bad_instrument": [changed(strike="x"), changed(expiration="soon"), changed(right="BOTH"), changed(symbol="")],
        "bad_time": [changed(trade_timestamp="yesterday"), changed(trade_timestamp="1960-01-01 00:00:00-05:00")],
        "bad_line": [OPTION_LINE + ",1", "a,b", "\x00\xff\x00garbage"],
    }
    lines = [line for part in bad.values() for line in part]
    text = "\n".join([OPTION_HEADER, OPTION_LINE, *lines, OPTION_LINE]) + "\n"
    path = tmp_path / "spy.csv"
    path.write_bytes(text.encode("latin-1"))
    trades, refusals = read(path)
    assert trades["n"].to_list() == [0, len(lines) + 1]
    assert [refusal.reason for refusal in sorted(refusals, key=lambda refusal: refusal.row)] == [
        code for code, part in bad.items() for _ in part
    ]
    for refusal in refusals:
        assert refusal.raw.rstrip(b"\n") == lines[refusal.row - 1].encode("latin-1")


def test_a_file_that_ends_in_the_middle_of_a_line_keeps_the_others_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "spy.csv"
    path.write_text("\n".join([OPTION_HEADER, OPTION_LINE, OPTION_LINE[:60]]))
    trades, refusals = read(path)
    assert trades.height == 1
    assert [(refusal.row, refusal.reason) for refusal in refusals] == [(1, "cut")]
    assert "middle of a line" in refusals[0].error


def test_times_without_an_offset_are_new_yorks_and_a_market_of_nothing_is_none(tmp_path: Path) -> None:
    path = tmp_path / "spy.csv"
    summer = changed(trade_timestamp="2024-06-14T09:55:03.122", quote_timestamp="2024-06-14T09:55:03")
    winter = changed(trade_timestamp="2030-01-14T09:55:03.5", bid="0", right="PUT")
    path.write_text("\n".join([OPTION_HEADER, summer, winter, changed(ask="0", bid="0")]) + "\r\n")
    trades, refusals = read(path)
    assert not refusals
    assert trades["source_ts"].to_list()[:2] == [ms("2024-06-14T13:55:03.122+00:00"), ms("2030-01-14T14:55:03.500+00:00")]
    assert trades["q_bid"].to_list() == [41.2, 0.0, None]
    assert trades["option_contract_id"].to_list()[1] == "SPY-2024-06-21-500-P"


def test_fractions_of_shares_are_kept_apart(tmp_path: Path) -> None:
    header = OPTION_HEADER.split(",", 4)[4]
    line = OPTION_LINE.split(",", 4)[4].replace(",10,6,41.71,", ",0.25,57,41.71,")
    path = tmp_path / "BRK.B_trades.csv"
    path.write_text(f"{header}\n{line}\n")
    chunks = list(open_file(str(path)).chunks())
    assert chunks[0].equity_trades.select("underlying_id", "size", "size_frac_micro", "trf_id").rows() == [("BRK.B", 0, 250_000, "NQNX")]
