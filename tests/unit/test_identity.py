"""Ids, contracts, exact rounding, canonical bytes and their hash."""

from __future__ import annotations

import hashlib
import math
import os
import random
import subprocess
import sys
from decimal import ROUND_HALF_UP, Context, Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowapp import topics
from flowapp.errors import SchemaError
from flowapp.records import schemas
from flowapp.records.canonical import ORIGIN, Conflict, canonical_bytes, canonical_hash
from flowapp.records.contracts import Contract, contract_id, contract_table, parse_contract
from flowapp.records.identity import (
    OPTION_PRINT,
    alert_id,
    candle_id,
    classifier_hit_id,
    dark_block_id,
    dark_id,
    dead_letter_id,
    equity_join_id,
    file_id,
    file_sha8,
    late_packet_id,
    live_id,
    packet_id,
    source_dead_letter_id,
    structure_packet_id,
    synthetic_id,
)
from flowapp.records.rounding import fixed_text, number_text, number_texts, round2, round4, round_array, round_expr


def defined(value: float, decimals: int) -> float:
    """Appendix C, word for word."""
    step = Decimal(1).scaleb(-decimals)
    return math.copysign(float(Decimal(abs(value)).quantize(step, ROUND_HALF_UP, Context(prec=1100))), value)


def beside_tie(whole: int, decimals: int, toward: float | None) -> float:
    tie = (2 * whole + 1) / (2 * 10**decimals)
    return tie if toward is None else math.nextafter(tie, toward)


NEAR_TIES = st.builds(beside_tie, st.integers(-(10**9), 10**9), st.sampled_from([2, 4]), st.sampled_from([None, math.inf, -math.inf]))
DYADIC = st.builds(lambda number, power: number / 2**power, st.integers(-(10**7), 10**7), st.integers(0, 12))
REALS = st.one_of(NEAR_TIES, DYADIC, st.floats(allow_nan=False, allow_infinity=False), st.floats(-1e6, 1e6))


@settings(max_examples=300, deadline=None)
@given(values=st.lists(REALS, min_size=1, max_size=40), decimals=st.sampled_from([2, 4]))
def test_rounding_of_vectors_and_of_single_values_equals_the_decimal_definition(values: list[float], decimals: int) -> None:
    expected = [defined(value, decimals) for value in values]
    assert round_array(values, decimals).tolist() == expected
    assert [{2: round2, 4: round4}[decimals](value) for value in values] == expected
    assert pl.DataFrame({"x": values}).select(round_expr(pl.col("x"), decimals))["x"].to_list() == expected


def test_rounding_agrees_with_the_definition_on_many_near_ties() -> None:
    chance = np.random.default_rng(7)
    whole = chance.integers(0, 10**11, 40_000)
    ties = (2 * whole + 1) / 20_000.0
    for values in (ties, np.nextafter(ties, np.inf), np.nextafter(ties, 0.0)):
        assert round_array(values, 4).tolist() == [defined(value, 4) for value in values.tolist()]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.00005, 1.0001),
        (1.005, 1.0),
        (0.00005, 0.0001),
        (-0.00005, -0.0001),
        (2.5e-5, 0.0),
        (1e300, 1e300),
        (123456789012.34565, 123456789012.3457),
    ],
)
def test_known_values_are_rounded_as_javascript_does(value: float, expected: float) -> None:
    rounded = round2(value) if value == 1.005 else round4(value)
    assert rounded == expected


def test_what_is_not_finite_stays_null_stays_null_and_zero_has_no_sign() -> None:
    frame = pl.DataFrame({"x": [None, math.inf, -math.inf, -0.00001, 1.23456]}, schema={"x": pl.Float64})
    rounded = frame.select(round_expr(pl.col("x"), 4))["x"].to_list()
    assert rounded == [None, math.inf, -math.inf, 0.0, 1.2346]
    assert math.copysign(1, rounded[3]) == 1 == math.copysign(1, round4(-0.00001))
    assert math.isnan(round_array([math.nan], 4)[0])
    assert math.isnan(round4(math.nan))


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (450.0, "450"), (450.5, "450.5"), (0.0, "0"), (-0.0, "0"), (-1.25, "-1.25"), (177.125, "177.125"), (0.1, "0.1"),
        (1e-6, "0.000001"),         (1e-7, "1e-7"), (1.5e-7, "1.5e-7"), (1e20, "100000000000000000000"), (1e21, "1e+21"),
        (123456789012345680000.0, "123456789012345680000"),
        (1.7976931348623157e308, "1.7976931348623157e+308"), (5e-324, "5e-324"), (1737100000000, "1737100000000"), (math.inf, "Infinity"),
        (-math.inf, "-Infinity"), (math.nan, "NaN"), (1e16, "10000000000000000"), (123.456e5, "12345600"),
    ],
)  # fmt: skip
def test_numbers_are_printed_as_javascript_prints_them(number: float, text: str) -> None:
    assert number_text(number) == text


@settings(max_examples=300, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_printed_number_reads_back_as_itself(number: float) -> None:
    assert float(number_text(number)) == number


def test_a_column_of_numbers_is_printed_like_single_ones() -> None:
    assert number_texts(pl.Series([450.0, None, 450.5, 450.0])).to_list() == ["450", None, "450.5", "450"]
    assert number_texts(pl.Series([], dtype=pl.Float64)).to_list() == []


def test_fixed_text_rounds_exact_ties_away_from_zero() -> None:
    assert [fixed_text(value, 3) for value in (0.0625, -0.0625, 2.0005, 450.0)] == ["0.063", "-0.063", "2.001", "450.000"]


REFERENCE_CONTRACTS = [
    ("SPY-2025-01-17-450-C", Contract("SPY", "2025-01-17", 450.0, "C")),
    ("BRK.B-2025-01-17-450-C", Contract("BRK.B", "2025-01-17", 450.0, "C")),
    ("A-B-2025-01-17-1.5-P", Contract("A-B", "2025-01-17", 1.5, "P")),
    ("SPY   250117C00450500", Contract("SPY", "2025-01-17", 450.5, "C")),
    ("AAPL250117P00150000", Contract("AAPL", "2025-01-17", 150.0, "P")),
    ("SPY-2025-01-17-STRUCT-straddle", None),
    ("X-Y", None),
    ("12345", None),
    ("", None),
    # Forms that JavaScript's number parsing admits, and impossible days.
    ("SPY250230C00450000", Contract("SPY", "2025-03-02", 450.0, "C")),
    ("SPY251301C00450000", Contract("SPY", "2026-01-01", 450.0, "C")),
    ("SPY250000C00450000", Contract("SPY", "2024-11-30", 450.0, "C")),
    ("SPY-2025-01-17--C", Contract("SPY", "2025-01-17", 0.0, "C")),
    ("SPY-2025-01-17- 1e3 -C", Contract("SPY", "2025-01-17", 1000.0, "C")),
    ("SPY-2025-01-17-0x10-P", Contract("SPY", "2025-01-17", 16.0, "P")),
    ("SPY-2025-01-17-1_0-P", None),
    ("SPY-2025-01-17-nan-P", None),
    ("SPY-2025-01-17-1e999-P", None),
    ("SPY-2025-01-17-Infinity-P", None),
    ("SPY-2025-01-17-450-c", None),
    ("-2025-01-17-450-C", None),
    ("SPY-any-thing-here-7-C", Contract("SPY", "any-thing-here", 7.0, "C")),
    ("250117C00450500", None),
    ("SPY250117X00450500", None),
    ("SPY-2025-01-17-450.-C", Contract("SPY", "2025-01-17", 450.0, "C")),
    ("A\nB-2025-01-17-450-C", Contract("A\nB", "2025-01-17", 450.0, "C")),
]


@pytest.mark.parametrize(("text", "expected"), REFERENCE_CONTRACTS)
def test_contract_ids_are_read_as_the_reference_reads_them(text: str, expected: Contract | None) -> None:
    assert parse_contract(text) == expected


def test_a_contract_table_says_the_same_as_reading_one_by_one() -> None:
    ids = [text for text, _ in REFERENCE_CONTRACTS] * 2
    table = contract_table(pl.Series([*ids, None]))
    assert table["option_contract_id"].to_list() == sorted(set(ids))
    for text, *parts in table.iter_rows():
        assert parts == list(parse_contract(text) or (None, None, None, None))
    assert contract_table(pl.Series([], dtype=pl.String)).height == 0


@pytest.mark.parametrize(
    ("strike", "text"), [(450.0, "450"), (450.5, "450.5"), (177.125, "177.125"), (0.0625, "0.063"), (1000.0, "1000"), (0.0, "0")]
)
def test_a_strike_is_printed_with_three_decimals_and_no_trailing_zeros(strike: float, text: str) -> None:
    assert contract_id("SPY", "2025-01-17", strike, "C") == f"SPY-2025-01-17-{text}-C"


@given(st.integers(1, 10**8), st.sampled_from(["SPY", "BRK.B", "A-B"]), st.sampled_from(["C", "P"]))
def test_a_printed_contract_reads_back_as_itself(mills: int, root: str, right: str) -> None:
    assert parse_contract(contract_id(root, "2025-01-17", mills / 1000, right)) == (root, "2025-01-17", mills / 1000, right)


def test_raw_ids_name_the_place_in_the_source() -> None:
    frame = pl.DataFrame({"n": [0, 41]}).select(
        live_id("alpaca", "20250117T143000", OPTION_PRINT, pl.col("n")).alias("live"),
        file_id("databento", "0a1b2c3d", "ep", pl.col("n")).alias("file"),
        synthetic_id(1, "active", "on", pl.col("n")).alias("synthetic"),
    )
    assert frame.row(1) == ("alpaca-20250117T143000-op-41", "databento-0a1b2c3d-ep-41", "synthetic-1-active-on-41")


def test_derived_ids_come_from_content_and_are_the_same_text_for_rows_and_for_columns() -> None:
    frame = pl.DataFrame({"c": ["SPY-2025-01-17-450-C"], "s": [1000], "e": [1200], "o": [7], "u": ["SPY"]})
    texts = frame.select(
        packet_id(pl.col("c"), pl.col("s"), pl.col("e")).alias("packet"),
        late_packet_id(pl.col("c"), pl.col("s"), pl.col("e"), pl.col("o")).alias("late"),
        candle_id(pl.col("u"), 60_000, pl.col("s")).alias("candle"),
        dark_id("distribution", pl.col("u"), pl.col("s")).alias("dark"),
    ).row(0)
    packet = "flowpacket:SPY-2025-01-17-450-C:1000:1200"
    assert texts == (packet, f"{packet}:late:7", "candle:SPY:60000:1000", "dark:distribution:SPY:1000")
    assert packet_id("SPY-2025-01-17-450-C", 1000, 1200) == packet
    assert late_packet_id("SPY-2025-01-17-450-C", 1000, 1200, 7) == f"{packet}:late:7"
    assert classifier_hit_id("large_call_sweep", packet) == f"classifier:large_call_sweep:{packet}"
    assert alert_id(packet) == f"alert:{packet}"
    assert dark_block_id(equity_join_id("p1")) == "dark:absorbed_block:equityjoin:p1"
    legs = ["SPY-2025-01-17-455-C", "SPY-2025-01-17-450-C"]
    assert structure_packet_id("SPY", "2025-01-17", "vertical", 500, legs) == (
        "flowpacket:SPY-2025-01-17-STRUCT-vertical:500:SPY-2025-01-17-450-C|SPY-2025-01-17-455-C"
    )
    assert dead_letter_id("options.prints", 3, 9) == "options.prints:3:9"
    assert source_dead_letter_id("thetadata", "0a1b2c3d", 12) == "thetadata:0a1b2c3d:12"


def test_a_file_is_known_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "tape.csv"
    path.write_bytes(b"abc")
    assert file_sha8(path) == hashlib.sha256(b"abc").hexdigest()[:8] == "ba7816bf"


def packets(count: int, **values: Any) -> pl.DataFrame:
    """Return packets that differ in id and place."""
    plain = {"long": 1, "double": 2.5, "string": "x", "array": []}
    row: dict[str, Any] = {}
    for field in schemas.schema("FlowPacket")["fields"]:
        base, _, nullable = schemas.split_type(field["type"])
        row[field["name"]] = None if nullable else plain[base]
    rows = [row | {"id": f"p{n}", "origin_partition": n % 3, "origin_offset": n} | values for n in range(count)]
    return pl.DataFrame(rows, schema=schemas.frame_schema("FlowPacket"), orient="row")


def prints(count: int) -> pl.DataFrame:
    """Return prints with a tick after every third one, as they are decoded."""
    plain = {"long": 1, "double": 2.5, "string": "x", "array": []}
    row: dict[str, Any] = {}
    for field in schemas.schema("OptionPrint")["fields"]:
        base, _, nullable = schemas.split_type(field["type"])
        row[field["name"]] = None if nullable else plain[base]
    rows: list[dict[str, Any]] = []
    for n in range(count):
        rows.append(row | {"trace_id": f"t{n}", "seq": 2 * n, "_partition": 0, "_offset": len(rows)})
        if n % 3 == 2:
            rows.append({"w": 250 * n, "seq": 2 * n + 1, "feed": "f", "run": "r1", "_partition": 0, "_offset": len(rows)})
    schema = {**schemas.topic_frame_schema(topics.OPTIONS_PRINTS), "_partition": pl.Int64(), "_offset": pl.Int64()}
    return pl.DataFrame(rows, schema=schema, orient="row")


def test_the_hash_depends_neither_on_order_nor_on_batches_nor_on_equal_duplicates_nor_on_the_run() -> None:
    frame, raw = packets(50), prints(20)
    expected = canonical_hash({topics.FLOW_PACKETS: frame, topics.OPTIONS_PRINTS: raw})
    assert expected.rows == {topics.FLOW_PACKETS: 50, topics.OPTIONS_PRINTS: 26}
    assert (expected.duplicates, expected.conflicts) == (0, ())
    shuffled = pl.concat([frame[25:], frame[:25], frame[10:12]]).sample(fraction=1, shuffle=True, seed=3)
    other_run = raw.with_columns(pl.col("run").str.replace("r1|x", "r2"))
    again = canonical_hash({topics.OPTIONS_PRINTS: other_run.reverse(), topics.FLOW_PACKETS: shuffled})
    assert again.digest == expected.digest
    assert (again.rows, again.duplicates) == (expected.rows, 2)


@pytest.mark.parametrize(
    "change",
    [{"total_premium": 2.6}, {"members": ["a"]}, {"revision": 2}, {"origin_offset": 999}, {"origin_partition": 7}, {"retracted": True}],
)
def test_the_hash_notices_a_change_of_any_value(change: dict[str, Any]) -> None:
    frame = packets(9)
    changed = pl.concat([frame[:4], packets(1, **{"id": "p4", "origin_partition": 1, "origin_offset": 4, **change}), frame[5:]])
    assert canonical_hash({topics.FLOW_PACKETS: frame}).digest != canonical_hash({topics.FLOW_PACKETS: changed}).digest


def test_the_hash_notices_a_missing_record_and_a_missing_topic() -> None:
    frame = packets(9)
    digests = {
        canonical_hash(frames).digest
        for frames in ({topics.FLOW_PACKETS: frame}, {topics.FLOW_PACKETS: frame[1:]}, {topics.FLOW_PACKETS: frame[:0]}, {})
    }
    assert len(digests) == 4


def test_unequal_records_of_one_id_and_revision_are_reported() -> None:
    twice = pl.concat([packets(3), packets(1, total_premium=9.0), packets(1, total_premium=9.0)])
    result = canonical_hash({topics.FLOW_PACKETS: twice})
    assert result.conflicts == (Conflict(topics.FLOW_PACKETS, 0, "p0", 1, 2),)
    assert result.duplicates == 1
    moved = pl.concat([packets(3), packets(1, origin_offset=77)])
    assert canonical_hash({topics.FLOW_PACKETS: moved}).conflicts == (Conflict(topics.FLOW_PACKETS, 0, "p0", 1, 2),)
    revised = pl.concat([packets(3), packets(1, revision=2, total_premium=9.0)])
    assert canonical_hash({topics.FLOW_PACKETS: revised}).conflicts == ()


def test_the_origin_can_be_left_out() -> None:
    frame = packets(5)
    elsewhere = frame.with_columns(pl.col("origin_offset") * 7 % 5)
    assert canonical_hash({topics.FLOW_PACKETS: frame}).digest != canonical_hash({topics.FLOW_PACKETS: elsewhere}).digest
    assert canonical_hash({topics.FLOW_PACKETS: frame}, ORIGIN) == canonical_hash({topics.FLOW_PACKETS: elsewhere}, ORIGIN)


def test_canonical_bytes_leave_run_facts_out_and_nothing_else() -> None:
    frame = prints(2).filter(pl.col("w").is_null())
    first, second = canonical_bytes("OptionPrint", frame)
    assert first != second
    assert canonical_bytes("OptionPrint", frame.with_columns(run=pl.lit("other"))) == [first, second]
    assert canonical_bytes("OptionPrint", frame[1:]) == [second]
    for name in ("feed", "exchange", "session"):
        assert canonical_bytes("OptionPrint", frame.with_columns(pl.lit("other").alias(name)))[0] != first


def test_raw_records_without_their_place_are_refused_by_name() -> None:
    with pytest.raises(SchemaError, match="OptionPrint needs the column origin_partition or _partition"):
        canonical_hash({topics.OPTIONS_PRINTS: prints(2).drop("_partition")})


PROGRAM = """
import hashlib
from tests.unit.test_identity import packets, prints
from flowapp import topics
from flowapp.records import schemas
from flowapp.records.canonical import canonical_bytes, canonical_hash
from flowapp.records.codec import Codec
from flowapp.records.registry import MemoryRegistry
frame = packets(40)
print(canonical_hash({topics.OPTIONS_PRINTS: prints(10), topics.FLOW_PACKETS: frame}).digest)
print(hashlib.sha256(b"".join(canonical_bytes("FlowPacket", frame))).hexdigest())
print(hashlib.sha256(b"".join(Codec(MemoryRegistry()).encode("FlowPacket", frame))).hexdigest())
print(hashlib.sha256("".join(map(schemas.canonical_json, schemas.names())).encode()).hexdigest())
"""


def test_bytes_and_hash_are_the_same_under_every_hash_seed() -> None:
    seeds = ["0", str(random.Random(5).randrange(2**32))]
    outputs = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM], env={**os.environ, "PYTHONHASHSEED": seed}, check=True, capture_output=True, text=True
        ).stdout
        for seed in seeds
    ]
    assert outputs[0] == outputs[1]
    assert outputs[0].splitlines()[0] == canonical_hash({topics.OPTIONS_PRINTS: prints(10), topics.FLOW_PACKETS: packets(40)}).digest
