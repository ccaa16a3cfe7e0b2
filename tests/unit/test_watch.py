"""How packets look in the terminal, and what is said when none come."""

from __future__ import annotations

import io
import json
from typing import Any

import polars as pl
import pytest

from flowapp.cli import parser_for
from flowapp.records import schemas
from flowapp.settings import Settings
from flowapp.watch import Watch, json_line, provenance, silence_text, text_line


def packet(**values: Any) -> dict[str, Any]:
    blank: dict[Any, Any] = {pl.String: "", pl.Boolean: False, pl.Int64: 0, pl.Float64: 0.0}
    return {name: blank.get(kind.base_type(), []) for name, kind in schemas.frame_schema("FlowPacket").items()} | values


A_PACKET = packet(
    id="flowpacket:SPY-2025-02-21-450-C:1740150302000:1740150302135",
    option_contract_id="SPY-2025-02-21-450-C",
    end_ts=1_740_150_302_135,
    count=12,
    member_count=12,
    total_size=1340,
    total_notional=536_000.0,
    nbbo_aa_count=2,
    nbbo_a_count=7,
    nbbo_mid_count=1,
    nbbo_b_count=1,
    nbbo_age_ms=12,
)


def test_a_packet_is_one_aligned_line_with_time_contract_count_size_premium_side_mix_and_age_of_quote() -> None:
    assert text_line(A_PACKET) == (
        "02-21 10:05:02.135  SPY-2025-02-21-450-C            12 prints    1,340 lots $      536,000  "
        "ask   9 mid   1 bid   1 ?   1  quote 12 ms"
    )


def test_lines_of_different_packets_have_their_columns_at_the_same_places() -> None:
    other = A_PACKET | {"option_contract_id": "BRK.B-2025-02-21-412.5-P", "count": 3, "total_size": 25_000, "total_notional": 1_250_000.0}
    first, second = text_line(A_PACKET), text_line(other)
    assert [first.index(word) for word in (" prints ", " lots ", "  ask ", "  quote ")] == [
        second.index(word) for word in (" prints ", " lots ", "  ask ", "  quote ")
    ]


def test_a_packet_without_a_quote_says_so_and_a_retracted_one_too() -> None:
    line = text_line(A_PACKET | {"nbbo_age_ms": None, "retracted": True})
    assert line.endswith("no quote retracted")


def test_a_json_line_holds_every_field_of_the_record() -> None:
    assert json.loads(json_line(A_PACKET)) == A_PACKET


def test_a_packet_sent_again_by_a_redone_checkpoint_is_shown_once_and_an_older_revision_never() -> None:
    out = io.StringIO()
    watch = Watch(Settings.load({}), line=lambda p: f"{p['id']} {p['revision']}", out=out)
    watch._show([A_PACKET | {"id": "a"}, A_PACKET | {"id": "a"}, A_PACKET | {"id": "b", "revision": 1}, A_PACKET | {"id": "b"}], None)
    watch._show([A_PACKET | {"id": "a", "revision": 1}], None)
    assert out.getvalue().splitlines() == ["a 0", "b 1", "a 1"]


def test_watching_ends_after_the_asked_number_of_packets() -> None:
    out = io.StringIO()
    watch = Watch(Settings.load({}), line=lambda p: str(p["id"]), out=out)
    watch._show([A_PACKET | {"id": str(n)} for n in range(5)], 3)
    assert out.getvalue().splitlines() == ["0", "1", "2"]


def prints(*verdicts: tuple[bool, list[str]]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "trace_id": [f"p{i}" for i in range(len(verdicts))],
            "signal_pass": [v for v, _ in verdicts],
            "signal_reasons": [r for _, r in verdicts],
        }
    )


def test_when_prints_flow_and_none_passes_the_reasons_are_counted_and_the_way_to_see_all_is_named() -> None:
    text = silence_text(prints((False, ["reject:min-notional"]), (False, ["reject:min-notional"]), (False, ["reject:no-signal-rule"])))
    assert text == (
        "of the newest 3 prints 0 passed the signal filter: reject:min-notional 2, reject:no-signal-rule 1; "
        "OPTIONS_SIGNAL_MODE=all shows every print"
    )


def test_when_prints_pass_but_no_packet_comes_the_worker_is_suspected() -> None:
    assert "no worker runs" in silence_text(prints((True, ["keep:ask-side"])))


def test_without_prints_the_edge_is_asked_for() -> None:
    assert silence_text(None) == "no prints yet: is an edge running? `flow status` tells"


@pytest.mark.parametrize(
    ("environ", "word"),
    [
        ({}, "SYNTHETIC"),
        ({"FLOW_NAMESPACE": "tape_x", "OPTIONS_INGEST_ADAPTER": "files"}, "RECORDED"),
    ],
)
def test_the_provenance_of_what_is_shown_cannot_be_missed(environ: dict[str, str], word: str) -> None:
    assert provenance(Settings.load(environ)) == word


def test_the_number_of_packets_to_show_must_be_positive(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["watch", "--count", "0"]
    with pytest.raises(SystemExit):
        parser_for(words).parse_args(words)
    assert "allowed: a whole number >= 1" in capsys.readouterr().err
