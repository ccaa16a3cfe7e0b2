"""What a contract's root says: its underlying, multiplier, settlement, hours and moment of expiration.

The table is dated, because roots come and go: a row holds for contracts that expire within its dates.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

from flowapp.edge.calendar import GLOBAL_INDEX_OPTION, INDEX_OPTION, LATE_ETF_OPTION, STOCK_OPTION, expires_at

STANDARD_MULTIPLIER, MINI_MULTIPLIER = 100, 10
ALWAYS = (date(1970, 1, 1), date(9999, 12, 31))


@dataclass(frozen=True)
class Root:
    """A root that differs from its underlying, or from what holds for stocks."""

    underlying: str
    settlement: str = "PM"
    hours: int = STOCK_OPTION
    multiplier: int = STANDARD_MULTIPLIER
    first: date = ALWAYS[0]
    last: date = ALWAYS[1]


# Mini options on ten shares, listed from 18 March 2013 to December 2014.
_MINIS = {
    f"{name}7": [Root(name, multiplier=MINI_MULTIPLIER, first=date(2013, 3, 18), last=date(2014, 12, 31))]
    for name in ("AAPL", "AMZN", "GLD", "GOOG", "SPY")
}

ROOTS: dict[str, list[Root]] = {
    "SPX": [Root("SPX", "AM", GLOBAL_INDEX_OPTION)],
    "SPXW": [Root("SPX", "PM", GLOBAL_INDEX_OPTION)],
    "SPXPM": [Root("SPX", "PM", INDEX_OPTION, first=date(2011, 10, 1), last=date(2017, 12, 31))],
    "SPXQ": [Root("SPX", "PM", INDEX_OPTION, last=date(2014, 12, 31))],
    "XSP": [Root("XSP", "AM", INDEX_OPTION, last=date(2013, 1, 31)), Root("XSP", "PM", GLOBAL_INDEX_OPTION, first=date(2013, 2, 1))],
    "VIX": [Root("VIX", "AM", GLOBAL_INDEX_OPTION)],
    "VIXW": [Root("VIX", "AM", GLOBAL_INDEX_OPTION)],
    "RUT": [Root("RUT", "AM", INDEX_OPTION)],
    "RUTW": [Root("RUT", "PM", INDEX_OPTION)],
    "MRUT": [Root("MRUT", "PM", INDEX_OPTION)],
    "NDX": [Root("NDX", "AM", INDEX_OPTION)],
    "NDXP": [Root("NDX", "PM", INDEX_OPTION)],
    "NQX": [Root("NQX", "PM", INDEX_OPTION)],
    "XND": [Root("XND", "PM", INDEX_OPTION)],
    "DJX": [Root("DJX", "AM", INDEX_OPTION)],
    "OEX": [Root("OEX", "PM", INDEX_OPTION)],
    "XEO": [Root("OEX", "PM", INDEX_OPTION)],
    "BRKB": [Root("BRK.B")],
    "BFB": [Root("BF.B")],
    "QQQQ": [Root("QQQ", hours=LATE_ETF_OPTION, last=date(2011, 4, 30))],
    **_MINIS,
}

# Options on broad funds and notes trade a quarter of an hour longer (Cboe Rule 5.1, NYSE Arca Rule 6.1A-O).
_LATE_ETFS = (
    "DBA DBB DBC DBO DIA EEM EFA GAZ IWM IWN IWO IWV KBE KRE MDY MOO OEF OIL QQQ SLX SPY SVXY UNG UUP UVIX UVXY VIXY VXX VXZ "
    "XHB XLB XLC XLE XLF XLI XLK XLP XLRE XLU XLV XLY XME XOP XRT"
)
LATE_ETFS = frozenset(_LATE_ETFS.split())


class Attributes(NamedTuple):
    """What a contract is, beyond what its id says; null means unknown."""

    underlying_id: str
    multiplier: int | None
    adjusted: bool
    settlement: str | None
    expires_at: int | None
    hours: int


def attributes(root: str, expiry: str | None) -> Attributes:
    """Return a contract's attributes; `root` in upper case, `expiry` as ISO text, None when the contract does not parse.

    A trailing digit that no listing explains marks an adjusted contract, whose deliverable is unknown here; a leading
    digit marks a FLEX option.
    """
    if expiry is None:
        return Attributes(root, None, False, None, None, STOCK_OPTION)
    day = _day(expiry)
    found = _listed(root, day)
    adjusted = False
    if found is None and len(root) > 1 and root[0] in "1234" and root[1:].isalpha():
        found = _listed(root[1:], day) or _plain(root[1:])
    if found is None and root[-1:].isdigit() and root.rstrip("0123456789"):
        adjusted = True
        found = _listed(root.rstrip("0123456789"), day) or _plain(root.rstrip("0123456789"))
    if found is None:
        found = _plain(root)
    at = None if day is None else expires_at(day, found.settlement)
    return Attributes(found.underlying, None if adjusted else found.multiplier, adjusted, found.settlement, at, found.hours)


def _listed(root: str, day: date | None) -> Root | None:
    for row in ROOTS.get(root, ()):
        if day is None or row.first <= day <= row.last:
            return row
    return None


def _plain(root: str) -> Root:
    return Root(root, hours=LATE_ETF_OPTION if root in LATE_ETFS else STOCK_OPTION)


def _day(expiry: str) -> date | None:
    try:
        return date.fromisoformat(expiry)
    except ValueError:
        return None
