"""DBN recordings arrive as databento itself decodes them. The recordings are the reader's own: FLOW_TEST_DATA."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import databento
import numpy as np
import polars as pl
import pytest
import zstandard

from flowapp import topics
from flowapp.edge.adapters.files import open_file
from flowapp.edge.adapters.tape import RecordedFile
from flowapp.edge.feeds import open_feeds, with_files
from flowapp.errors import SourceError
from tests.mocks.edge import decoded as decoded_records
from tests.mocks.edge import memory_settings, prints, run_edge

DATA = os.environ.get("FLOW_TEST_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="FLOW_TEST_DATA does not name the folder of recorded market data")


def recording(name: str) -> Path:
    return Path(DATA or "") / "databento_fixtures" / name


def read(file: RecordedFile) -> tuple[pl.DataFrame, pl.DataFrame, list[Any]]:
    """Return all trades, all quotes and all refusals of a file."""
    chunks = list(file.chunks())
    trades = pl.concat([chunk.option_trades if file.kind == "options" else chunk.equity_trades for chunk in chunks])
    quotes = pl.concat([chunk.option_quotes if file.kind == "options" else chunk.equity_quotes for chunk in chunks])
    return trades, quotes, [refusal for chunk in chunks for refusal in chunk.refusals]


def decoded(path: Path) -> Any:
    store = databento.DBNStore.from_bytes(path.read_bytes())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # databento's own calls of pandas
        return store.to_df(pretty_ts=False).reset_index()


OPTION_TRADES = [
    "databento-python/OPRA.PILLAR/test_data.trades.dbn.zst",
    "databento-python/OPRA.PILLAR/test_data.tbbo.dbn.zst",
    "databento-python_older_f361be3/OPRA.PILLAR/test_data.trades.dbn.zst",
    "databento-python_older_f361be3/OPRA.PILLAR/test_data.tbbo.dbn.zst",
]
STOCK_TRADES = [
    "databento-python/EQUS.MINI/test_data.trades.dbn.zst",
    "databento-python/EQUS.MINI/test_data.tbbo.dbn.zst",
    "databento-python/XNAS.ITCH/test_data.trades.dbn.zst",
    "databento-python_older_84186ad/DBEQ.BASIC/test_data.trades.dbn.zst",
    "databento-python_older_84186ad/DBEQ.BASIC/test_data.tbbo.dbn.zst",
]


@needs_data
def test_the_recordings_are_of_all_three_versions() -> None:
    versions = {databento.DBNStore.from_bytes(recording(name).read_bytes()).metadata.version for name in (*OPTION_TRADES, *STOCK_TRADES)}
    assert versions == {1, 2, 3}


@needs_data
@pytest.mark.parametrize("name", OPTION_TRADES + STOCK_TRADES)
def test_trades_arrive_with_the_prices_sizes_and_times_that_databento_decodes(name: str) -> None:
    expected = decoded(recording(name))
    trades, _, refusals = read(open_file(str(recording(name))))
    assert not refusals
    assert trades["price"].to_list() == expected["price"].tolist()
    assert trades["size"].to_list() == expected["size"].tolist()
    assert trades["feed_ts_ns"].to_list() == expected["ts_event"].tolist()
    assert trades["source_ts"].to_list() == [ns // 1_000_000 for ns in expected["ts_event"].tolist()]
    assert trades["exchange"].to_list() == [str(databento.Publisher.from_int(number).venue.value) for number in expected["publisher_id"]]
    if "tbbo" in name:
        for ours, theirs in (("q_bid", "bid_px_00"), ("q_ask", "ask_px_00")):
            assert trades[ours].to_list() == [None if value != value else value for value in expected[theirs].tolist()]
        assert trades["q_bid_size"].to_list() == expected["bid_sz_00"].tolist()
        assert trades["q_ts_ns"].to_list() == expected["ts_event"].tolist()


@needs_data
@pytest.mark.parametrize("name", OPTION_TRADES + STOCK_TRADES)
def test_the_log_holds_what_databento_decodes(name: str) -> None:
    expected = decoded(recording(name))
    settings = with_files(memory_settings(), [str(recording(name))], options=None, equities=None)
    sent = run_edge(settings, open_feeds(settings, None))
    topic = topics.OPTIONS_PRINTS if "OPRA" in name else topics.EQUITIES_PRINTS
    rows = prints(sent, topic).sort("seq")
    assert rows["price"].to_list() == expected["price"].tolist()
    assert rows["size"].to_list() == expected["size"].tolist()
    assert rows["feed_ts_ns"].to_list() == expected["ts_event"].tolist()
    assert rows["conditions_unavailable"].to_list() == [True] * rows.height
    if "tbbo" in name:
        quotes = decoded_records(sent, topics.OPTIONS_NBBO if "OPRA" in name else topics.EQUITIES_QUOTES)
        assert quotes["bid"].to_list() == [value for value in expected["bid_px_00"].tolist() if value == value]
        assert rows["quote_source"].drop_nulls().unique().to_list() == ["with_trade"]


@needs_data
def test_option_symbols_come_from_the_metadata_and_ids_from_file_and_row() -> None:
    file = open_file(str(recording(OPTION_TRADES[0])))
    trades, _, _ = read(file)
    assert trades["option_contract_id"].unique().to_list() == ["AAPL-2025-02-21-250-C"]
    assert trades["trace_id"].to_list() == [f"databento-{file.digest}-op-{row}" for row in range(4)]
    assert (file.feed, file.vocabulary, file.kind) == ("databento", "none", "options")


@needs_data
def test_a_quote_of_undefined_prices_is_no_quote() -> None:
    trades, _, _ = read(open_file(str(recording(OPTION_TRADES[3]))))
    assert trades["q_bid"].to_list()[0] is None
    assert trades["q_ts"].to_list()[0] is not None
    assert trades["q_ask"].to_list()[1] == 2.11


@needs_data
def test_sampled_quotes_bear_the_time_at_which_they_were_taken() -> None:
    path = recording("databento-python/OPRA.PILLAR/test_data.cbbo-1s.dbn.zst")
    trades, quotes, _ = read(open_file(str(path)))
    expected = decoded(path)
    assert trades.is_empty()
    assert quotes["feed_ts_ns"].to_list() == expected["ts_recv"].tolist()
    assert quotes["ask"].to_list() == [None if value != value else value for value in expected["ask_px_00"].tolist()]
    assert quotes["bid_size"].to_list() == expected["bid_sz_00"].tolist()
    assert quotes["quote_source"].unique().to_list() == ["sampled"]
    assert quotes["bid_venue"].to_list() == [None, "EMLD", "MXOP", "MPRL"]


@needs_data
def test_of_an_option_books_updates_only_the_consolidated_ones_are_quotes() -> None:
    trades, quotes, _ = read(open_file(str(recording("databento-python/OPRA.PILLAR/test_data.mbp-1.dbn.zst"))))
    assert trades.is_empty()
    assert quotes["n"].to_list() == [1]
    assert quotes["bid"].to_list() == [None]


@needs_data
def test_book_updates_of_a_stock_are_its_quotes() -> None:
    _, quotes, _ = read(open_file(str(recording("databento-python/EQUS.MINI/test_data.mbp-1.dbn.zst"))))
    assert quotes["underlying_id"].unique().to_list() == ["QQQ"]
    assert quotes["bid"].to_list()[2:] == [307.89, 307.89]
    assert quotes["ask_size"].to_list() == [0, 600, 600, 600]


@needs_data
@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("databento-python/OPRA.PILLAR/test_data.definition.dbn.zst", "schema definition"),
        ("databento-python/OPRA.PILLAR/test_data.statistics.dbn.zst", "schema statistics"),
        ("databento-python/OPRA.PILLAR/test_data.ohlcv-1s.dbn.zst", "schema ohlcv-1s"),
        ("databento-python/LIVE/test_data.live.dbn.zst", "dataset GLBX.MDP3"),
        ("duckdb-dbn_SYNTHETIC/test_data.tcbbo.dbn", "dataset GLBX.MDP3"),
    ],
)
def test_what_carries_no_prints_is_refused_by_name(name: str, named: str) -> None:
    with pytest.raises(SourceError, match=named):
        open_file(str(recording(name)))


@needs_data
def test_a_recording_that_was_cut_keeps_what_can_be_read_and_says_where(tmp_path: Path) -> None:
    whole = databento.DBNStore.from_bytes(recording(OPTION_TRADES[0]).read_bytes())
    plain = tmp_path / "cut.dbn"
    raw = bytearray(whole.reader.read())
    plain.write_bytes(raw[:-10])
    trades, _, refusals = read(open_file(str(plain)))
    assert trades.height == 3
    assert [(refusal.row, refusal.reason) for refusal in refusals] == [(3, "cut")]
    records = whole.to_ndarray()
    many = np.tile(records, 50_000)
    many["sequence"] = np.random.default_rng(1).integers(0, 2**31, many.size)
    start = bytes(raw).index(records.tobytes()[:48])
    compressed = tmp_path / "cut.dbn.zst"
    compressed.write_bytes(zstandard.compress(bytes(raw[:start]) + many.tobytes())[:-100_000])
    trades, _, refusals = read(open_file(str(compressed)))
    assert 100_000 < trades.height < 200_000
    assert [(refusal.row, refusal.reason) for refusal in refusals] == [(trades.height, "cut")]


@needs_data
def test_an_unknown_instrument_and_an_impossible_price_are_refused_with_their_bytes(tmp_path: Path) -> None:
    store = databento.DBNStore.from_bytes(recording(OPTION_TRADES[0]).read_bytes())
    records = store.to_ndarray()
    raw = store.reader.read()
    start = raw.index(records.tobytes()[:48])
    changed = records.copy()
    changed["instrument_id"][1] = 7
    changed["price"][2] = 2**63 - 1
    changed["price"][3] = -5
    changed["size"][0] = 0
    path = tmp_path / "bad.dbn"
    path.write_bytes(raw[:start] + changed.tobytes())
    trades, _, refusals = read(open_file(str(path)))
    assert trades.is_empty()
    assert sorted((refusal.row, refusal.reason) for refusal in refusals) == [
        (0, "bad_size"),
        (1, "bad_instrument"),
        (2, "bad_price"),
        (3, "bad_price"),
    ]
    assert all(refusal.raw == changed[refusal.row].tobytes() for refusal in refusals)
    assert "id 7" in next(refusal.error for refusal in refusals if refusal.row == 1)


def test_directories_empty_missing_and_foreign_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.dbn").touch()
    (tmp_path / "text.csv").write_text("a,b\n1,2\n")
    (tmp_path / "broken.dbn").write_bytes(b"DBN\x03 and nothing of the kind")
    (tmp_path / "broken.dbn.zst").write_bytes(b"\x28\xb5\x2f\xfd and nothing of the kind")
    for name, named in [
        (".", "is a directory"), ("missing.dbn", "does not exist"), ("empty.dbn", "is empty"), ("text.csv", "neither a Databento file"),
        ("broken.dbn", "is no DBN file"), ("broken.dbn.zst", "is no DBN file"),
    ]:  # fmt: skip
        with pytest.raises(SourceError, match=named):
            open_file(str(tmp_path / name))
