"""What happens in the synthetic market: scenarios and profiles, as data.

Counts, weights, notionals and placement of the three profiles are those of reference 17.4 to 17.6. `COMMON` is added
to each of them, so that every profile has venue-flagged packages, auctions, crosses, floor and late prints, and a
counterweight to the buying of `ask_lift`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

CONDITION_WORDS = ("FILL", "TEST", "SWEEP", "ISO", "MULTI_LEG", "AUCTION", "CROSS", "FLOOR", "LATE", "CANCEL")
"""Every condition word that the synthetic feeds use; a print has one."""

OPTION_VENUES = ("CBOE", "PHLX", "ISE", "ARCA", "BOX", "MIAX")
EQUITY_VENUES = ("NYSE", "NASDAQ", "ARCA", "BATS", "IEX", "TEST")
OFF_EXCHANGE_VENUE = "OTC"
REPORTING_FACILITIES = ("FINN", "FINC", "FINY")


class Placement(IntEnum):
    """Where a print stands in its quote, in the order of the placement tables."""

    ABOVE_ASK = 0
    ASK = 1
    MID = 2
    BID = 3
    BELOW_BID = 4


@dataclass(frozen=True)
class Scenario:
    """One kind of parent order."""

    name: str
    weight: int
    right: str | None
    """C, P, or None for either."""
    prints: tuple[int, int]
    notional: tuple[int, int]
    """Dollars of all prints of a run; decides the size unless `contracts` does."""
    placement: tuple[int, int, int, int, int]
    """Weights in the order of `Placement`; they add up to 100."""
    words: tuple[str, ...] = ("FILL",)
    trend: float = 0.0
    """Relative change of the option's price from print to print."""
    contracts: tuple[int, int] | None = None
    """Contracts a print, of options far out of the money."""
    sweeps: bool = False
    """Prints go round the venues."""
    package: bool = False
    """Legs of one package, each its own contract."""
    rests: bool = False
    """Some at-the-quote prints hit a resting customer order whose size is the quote's."""


@dataclass(frozen=True)
class Leg:
    """One leg of a package, relative to its first: strikes and expiries further, same or other right, ratio, direction."""

    strikes: int = 0
    later: bool = False
    other_right: bool = False
    ratio: int = 1
    buys: bool = True


PACKAGES: dict[str, tuple[Leg, ...]] = {
    "vertical": (Leg(), Leg(strikes=1, buys=False)),
    "straddle": (Leg(), Leg(other_right=True)),
    "roll": (Leg(buys=False), Leg(later=True)),
    "butterfly": (Leg(strikes=-1), Leg(ratio=2, buys=False), Leg(strikes=1)),
    "condor": (
        Leg(strikes=-2),
        Leg(strikes=-1, buys=False),
        Leg(strikes=1, other_right=True, buys=False),
        Leg(strikes=2, other_right=True),
    ),
}

UP_TREND = 0.01

_REALISTIC = (
    Scenario("ask_lift", 18, None, (1, 2), (9_000, 35_000), (20, 45, 25, 8, 2), rests=True),
    Scenario("mid_block", 14, None, (1, 2), (12_000, 45_000), (0, 20, 60, 20, 0)),
    Scenario("bullish_sweep", 8, "C", (2, 3), (25_000, 90_000), (20, 50, 15, 10, 5), ("SWEEP",), UP_TREND, sweeps=True),
    Scenario("bearish_sweep", 8, "P", (2, 3), (25_000, 90_000), (10, 20, 15, 35, 20), ("SWEEP",), UP_TREND, sweeps=True),
    Scenario("contract_spike", 6, None, (2, 3), (18_000, 70_000), (5, 25, 40, 25, 5), ("ISO",), contracts=(500, 900), sweeps=True),
    Scenario("noise", 46, None, (1, 2), (500, 6_000), (10, 20, 40, 20, 10), ("FILL", "FILL", "FILL", "TEST"), rests=True),
)

_ACTIVE = (
    Scenario("bullish_sweep", 35, "C", (7, 10), (120_000, 240_000), (25, 40, 0, 20, 15), ("SWEEP",), UP_TREND, sweeps=True),
    Scenario("bearish_sweep", 35, "P", (7, 10), (120_000, 240_000), (15, 20, 0, 40, 25), ("SWEEP",), UP_TREND, sweeps=True),
    Scenario("contract_spike", 20, None, (5, 8), (60_000, 140_000), (25, 25, 0, 25, 25), ("ISO",), contracts=(1_200, 3_200), sweeps=True),
    Scenario("noise", 10, None, (2, 4), (500, 5_000), (25, 25, 0, 25, 25), ("FILL", "FILL", "FILL", "TEST"), rests=True),
)

_FIREHOSE = (
    replace(_ACTIVE[0], weight=45, prints=(9, 13), notional=(120_000, 360_000)),
    replace(_ACTIVE[1], weight=45, prints=(9, 13), notional=(120_000, 360_000)),
    replace(_ACTIVE[2], weight=30, prints=(7, 11), notional=(60_000, 210_000), contracts=(1_200, 6_400)),
    replace(_ACTIVE[3], weight=20, prints=(5, 8), notional=(800, 12_000), placement=(20, 20, 20, 20, 20)),
)

COMMON = (
    Scenario("bid_hit", 12, None, (1, 2), (9_000, 35_000), (2, 8, 25, 45, 20), rests=True),
    Scenario("package", 8, None, (1, 1), (8_000, 80_000), (0, 25, 50, 25, 0), ("MULTI_LEG",), package=True),
    Scenario("auction", 4, None, (1, 3), (5_000, 40_000), (0, 25, 50, 25, 0), ("AUCTION",)),
    Scenario("cross", 2, None, (1, 1), (20_000, 120_000), (0, 10, 80, 10, 0), ("CROSS",)),
    Scenario("floor", 2, None, (1, 1), (20_000, 120_000), (5, 20, 50, 20, 5), ("FLOOR",)),
    Scenario("late", 2, None, (1, 1), (5_000, 40_000), (10, 25, 30, 25, 10), ("LATE",)),
)


@dataclass(frozen=True)
class EquityPlan:
    """How the equities feed behaves, per tick at the default rate."""

    lit_prints: int
    dark_every_ticks: int
    off_exchange_modulus: int
    lit_size: tuple[int, int]
    block_size: int
    accumulation_size: int


@dataclass(frozen=True)
class Profile:
    """One way the market can be."""

    name: str
    rate: float
    """Option prints a second when no rate is set."""
    runs: tuple[int, int]
    """Repetitions of a parent order, about a second apart."""
    scenarios: tuple[Scenario, ...]
    equities: EquityPlan


# The realistic plan's dark sequence and its sizes are ours: the reference has none there, which hid the product.
PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile("realistic", 1.8, (1, 2), _REALISTIC + COMMON, EquityPlan(2, 4, 8, (10, 309), 2_200, 780)),
        Profile("active", 7.5, (2, 4), _ACTIVE + COMMON, EquityPlan(5, 1, 4, (20, 919), 2_600, 800)),
        Profile("firehose", 10.0, (4, 7), _FIREHOSE + COMMON, EquityPlan(10, 1, 2, (40, 1_439), 4_000, 1_500)),
    )
}

# Where lit equity prints stand in their quote; the steps of a dark sequence (reference 17.6).
EQUITY_PLACEMENT = (3, 27, 40, 27, 3)
DARK_STEPS = (
    Placement.MID,
    Placement.ABOVE_ASK, Placement.ASK, Placement.ABOVE_ASK, Placement.ASK,
    Placement.BELOW_BID, Placement.BID, Placement.BELOW_BID, Placement.BID,
)  # fmt: skip

# Strikes: distance from the price in standard deviations of the option's life, out of the money positive, and weights.
MONEYNESS = (-1.0, -0.4, 0.0, 0.3, 0.7, 1.2, 1.7)
MONEYNESS_WEIGHTS = (1, 3, 8, 7, 5, 3, 1)
FAR_MONEYNESS = (1.3, 1.5, 1.7, 1.9)

CANCEL_ONE_IN_RUNS = 40
CANCEL_DELAY_MS = (50, 2_499)
REST_PER_CENT = 30


def resolve(market: str, options: str = "", equities: str = "") -> tuple[str, str]:
    """Return the options and equities profiles of a market mode and its overrides (reference 17.1)."""
    base = market if market in PROFILES else "realistic"
    return (options if options in PROFILES else base, equities if equities in PROFILES else base)
