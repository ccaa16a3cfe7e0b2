"""Vendors' sale condition codes, mapped to the classes of the condition policy (market facts 6.1, 6.2).

One dated table per vocabulary. For options a class is OPRA's own name of the condition; equities use the class that
permits the same: an average price or a derivative price is no more signable than a cross (SLCN), a sale reported out
of sequence than OSEQ, the hedge of an option package than TLET, and an official price is no trade (MCTP).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from types import MappingProxyType

import polars as pl

from flowapp.core.conditions import CONDITION_COLUMNS, condition_columns

NONE = "none"


@dataclass(frozen=True)
class Vocabulary:
    """A vendor's codes: the class of each, and of equities those that set no price and those that say odd lot."""

    since: date
    classes: Mapping[str, str]
    no_price: frozenset[str] = field(default_factory=frozenset)
    odd_lot: frozenset[str] = field(default_factory=frozenset)


def _pairs(text: str) -> dict[str, str]:
    return {code: name for name, code in (pair.split(":", 1) for pair in text.split())}


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Letter and number of every OPRA condition in use since 4 November 2019; the numbers are Massive's.
_OPRA = _pairs(
    "CANC:A OSEQ:B CNCL:C LATE:D CNCO:E OPEN:F CNOL:G OPNL:H AUTO:I REOP:J ISOI:S SLAN:a SLAI:b SLCN:c SCLI:d SLFT:e MLET:f MLAT:g "
    "MLCT:h MLFT:i MESL:j TLAT:k MASL:l MFSL:m TLET:n TLCT:o TLFT:p TESL:q TASL:r TFSL:s CBMO:t MCTP:u EXHT:v"
)
_MASSIVE = _pairs(
    "CANC:201 OSEQ:202 CNCL:203 LATE:204 CNCO:205 OPEN:206 CNOL:207 OPNL:208 AUTO:209 REOP:210 ISOI:219 SLAN:227 SLAI:228 SLCN:229 "
    "SCLI:230 SLFT:231 MLET:232 MLAT:233 MLCT:234 MLFT:235 MESL:236 TLAT:237 MASL:238 MFSL:239 TLET:240 TLCT:241 TLFT:242 TESL:243 "
    "TASL:244 TFSL:245 CBMO:246 MCTP:247 EXHT:248"
)
# ThetaData has one table for all its feeds; these are the options' part. 35 to 38 are OPRA's package letters before 2019.
_THETADATA = _pairs(
    "AUTO:0 OSEQ:2 OPEN:5 OPEN:6 OPNL:7 LATE:13 AUTO:18 REOP:21 AUTO:32 MLET:35 MLET:36 TLET:37 MLET:38 CANC:40 CNCL:41 CNCO:42 CNOL:43 "
    "CANC:44 ISOI:95 REOP:97 EXHT:118 SLAN:125 SLAI:126 SLCN:127 SCLI:128 SLFT:129 MLET:130 MLAT:131 MLCT:132 MLFT:133 MESL:134 TLAT:135 "
    "MASL:136 MFSL:137 TLET:138 TLCT:139 TLFT:140 TESL:141 TASL:142 TFSL:143 CBMO:144 MCTP:147 EXHT:148"
)
_SYNTHETIC = _pairs("AUTO:FILL AUTO:TEST ISOI:SWEEP ISOI:ISO MLET:MULTI_LEG SLAN:AUCTION SLCN:CROSS SLFT:FLOOR LATE:LATE CANC:CANCEL")

_SIP = (
    "AUTO:@ AUTO:E AUTO:A AUTO:D AUTO:S AUTO:Y AUTO:J AUTO:K AUTO:8 AUTO:I ISOI:F SLCN:4 TLET:7 TLET:V OSEQ:P OSEQ:Z EXHT:U LATE:L "
    "EXHT:T SLCN:H REOP:O REOP:5 REOP:6 MCTP:9 MCTP:M MCTP:Q SLAN:X SLCN:C SLCN:N SLCN:R SLCN:1 SLCN:2 SLCN:3 "
)
_SIP_NO_PRICE = _words("4 7 V P Z U L T H 9 M Q C N R I W")
_THETADATA_EQUITY = _pairs(
    "AUTO:0 EXHT:1 OSEQ:2 SLCN:4 OPEN:5 OPEN:6 OPNL:7 OSEQ:8 SLCN:9 AUTO:10 SLCN:11 SLCN:12 LATE:13 AUTO:14 OSEQ:15 AUTO:22 AUTO:29 "
    "AUTO:30 AUTO:31 AUTO:32 CANC:40 CNCL:41 CNCO:42 CNOL:43 SLAN:45 MCTP:51 TLET:53 SLCN:55 SLCN:56 SLCN:59 REOP:62 REOP:63 EXHT:65 "
    "MCTP:66 AUTO:79 ISOI:95 SLCN:96 REOP:97 REOP:98 SLCN:104 TLET:105 SLCN:106 AUTO:107 AUTO:108 TLET:114 AUTO:115 MCTP:117 TLET:124"
)
_THETADATA_NO_PRICE = _words("1 2 4 8 9 11 12 13 15 51 53 59 65 66 96 104 105 114 115 117 124")
# Bits of AlgoSeek's condition word, a code each.
_LEAN = _pairs(
    "AUTO:1 SLCN:2 SLCN:4 SLCN:8 AUTO:10 ISOI:20 REOP:40 REOP:80 REOP:100 SLCN:200 EXHT:400 LATE:800 SLCN:1000 EXHT:2000 EXHT:4000 "
    "AUTO:8000 AUTO:10000 AUTO:20000 TLET:40000 AUTO:80000 SLCN:100000 SLAN:200000 SLCN:400000 AUTO:800000 MCTP:1000000 OSEQ:2000000 "
    "MCTP:4000000 AUTO:8000000 AUTO:10000000 AUTO:20000000 AUTO:40000000 AUTO:80000000"
)
_LEAN_NO_PRICE = _words("2 4 8 200 400 800 2000 4000 40000 100000 400000 1000000 2000000 4000000 80000000")

_OPRA_SINCE = date(2019, 11, 4)
VOCABULARIES: Mapping[str, Vocabulary] = MappingProxyType(
    {
        "opra": Vocabulary(_OPRA_SINCE, {"": "AUTO", " ": "AUTO", **_OPRA}),
        "massive": Vocabulary(_OPRA_SINCE, _MASSIVE),
        "thetadata": Vocabulary(_OPRA_SINCE, _THETADATA),
        "synthetic": Vocabulary(date(2026, 1, 1), _SYNTHETIC),
        "cts": Vocabulary(
            date(2016, 2, 1), {"": "AUTO", " ": "AUTO", **_pairs(_SIP + "SLCN:B SLCN:W")}, _SIP_NO_PRICE | {"B"}, frozenset({"I"})
        ),
        "utp": Vocabulary(date(2016, 2, 1), {"": "AUTO", " ": "AUTO", **_pairs(_SIP + "AUTO:B SLCN:W")}, _SIP_NO_PRICE, frozenset({"I"})),
        "thetadata_equity": Vocabulary(date(2016, 2, 1), _THETADATA_EQUITY, _THETADATA_NO_PRICE, frozenset({"115"})),
        "lean": Vocabulary(date(2007, 1, 1), {"0": "AUTO", **_LEAN}, _LEAN_NO_PRICE, frozenset({"80000000"})),
        NONE: Vocabulary(date(1970, 1, 1), {}),
    }
)


def option_columns(frame: pl.DataFrame, vocabulary: str) -> pl.DataFrame:
    """Return the policy columns of option prints; a feed without conditions says so on every print."""
    return condition_columns(frame, VOCABULARIES[vocabulary].classes, vocabulary != NONE)


def equity_columns(frame: pl.DataFrame, vocabulary: str) -> pl.DataFrame:
    """Return the policy columns of equity prints, with `may_price` and `is_odd_lot`; null where the feed has no conditions."""
    table = VOCABULARIES[vocabulary]
    columns = condition_columns(frame, table.classes, vocabulary != NONE)
    if vocabulary == NONE:
        unknown = pl.lit(None, pl.Boolean)
        return columns.with_columns(unknown.alias("may_price"), unknown.alias("is_odd_lot"))
    codes = pl.col("conditions").list
    priced = ~codes.set_intersection(pl.lit(sorted(table.no_price), pl.List(pl.String))).list.len().cast(pl.Boolean)
    odd = codes.set_intersection(pl.lit(sorted(table.odd_lot), pl.List(pl.String))).list.len().cast(pl.Boolean)
    flags = frame.select(priced.fill_null(True).alias("may_price"), odd.fill_null(False).alias("is_odd_lot"))
    allowed = ~pl.col("conditions_unmapped") & ~pl.col("is_cancel").fill_null(False) & ~pl.col("is_excluded").fill_null(False)
    return columns.with_columns(flags.get_columns()).with_columns(pl.col("may_price") & allowed)


__all__ = ["CONDITION_COLUMNS", "NONE", "VOCABULARIES", "Vocabulary", "equity_columns", "option_columns"]
