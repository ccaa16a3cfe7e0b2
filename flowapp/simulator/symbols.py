"""The names that trade: universe, price bases, classes."""

from __future__ import annotations

import numpy as np
import polars as pl

from flowapp.simulator.dice import Floats, Ints

# Reference appendix B, in its order; SPY stands before it.
_LISTED = """
MMM AOS ABT ABBV ACN ADBE AMD AES AFL A APD ABNB AKAM ALB ARE ALGN ALLE LNT ALL GOOGL GOOG MO AMZN AMCR AEE AEP AXP AIG AMT AWK
AMP AME AMGN APH ADI AON APA APO AAPL AMAT APTV ACGL ADM ANET AJG AIZ T ATO ADSK ADP AZO AVB AVY AXON BKR BALL BAC BAX BDX BRK.B
BBY TECH BIIB BLK BX XYZ BK BA BKNG BSX BMY AVGO BR BRO BF.B BLDR BG BXP CHRW CDNS CZR CPT CPB COF CAH KMX CCL CARR CAT CBOE
CBRE CDW COR CNC CNP CF CRL SCHW CHTR CVX CMG CB CHD CI CINF CTAS CSCO C CFG CLX CME CMS KO CTSH COIN CL CMCSA CAG COP ED STZ
CEG COO CPRT GLW CPAY CTVA CSGP COST CTRA CRWD CCI CSX CMI CVS DHR DRI DDOG DVA DAY DECK DE DELL DAL DVN DXCM FANG DLR DG DLTR D
DPZ DASH DOV DOW DHI DTE DUK DD EMN ETN EBAY ECL EIX EW EA ELV EMR ENPH ETR EOG EPAM EQT EFX EQIX EQR ERIE ESS EL EG EVRG ES EXC
EXE EXPE EXPD EXR XOM FFIV FDS FICO FAST FRT FDX FIS FITB FSLR FE FI F FTNT FTV FOXA FOX BEN FCX GRMN IT GE GEHC GEV GEN GNRC GD
GIS GM GPC GILD GPN GL GDDY GS HAL HIG HAS HCA DOC HSIC HSY HPE HLT HOLX HD HON HRL HST HWM HPQ HUBB HUM HBAN HII IBM IEX IDXX
ITW INCY IR PODD INTC ICE IFF IP IPG INTU ISRG IVZ INVH IQV IRM JBHT JBL JKHY J JNJ JCI JPM K KVUE KDP KEY KEYS KMB KIM KMI KKR
KLAC KHC KR LHX LH LRCX LW LVS LDOS LEN LII LLY LIN LYV LKQ LMT L LOW LULU LYB MTB MPC MKTX MAR MMC MLM MAS MA MTCH MKC MCD MCK
MDT MRK META MET MTD MGM MCHP MU MSFT MAA MRNA MHK MOH TAP MDLZ MPWR MNST MCO MS MOS MSI MSCI NDAQ NTAP NFLX NEM NWSA NWS NEE
NKE NI NDSN NSC NTRS NOC NCLH NRG NUE NVDA NVR NXPI ORLY OXY ODFL OMC ON OKE ORCL OTIS PCAR PKG PLTR PANW PSKY PH PAYX PAYC PYPL
PNR PEP PFE PCG PM PSX PNW PNC POOL PPG PPL PFG PG PGR PLD PRU PEG PTC PSA PHM PWR QCOM DGX RL RJF RTX O REG REGN RF RSG RMD
RVTY ROK ROL ROP ROST RCL SPGI CRM SBAC SLB STX SRE NOW SHW SPG SWKS SJM SW SNA SOLV SO LUV SWK SBUX STT STLD STE SYK SMCI SYF
SNPS SYY TMUS TROW TTWO TPR TRGP TGT TEL TDY TER TSLA TXN TPL TXT TMO TJX TKO TTD TSCO TT TDG TRV TRMB TFC TYL TSN USB UBER UDR
ULTA UNP UAL UPS URI UNH UHS VLO VTR VLTO VRSN VRSK VZ VRTX VTRS VICI V VST VMC WRB GWW WAB WBA WMT DIS WBD WM WAT WEC WFC WELL
WST WDC WY WSM WMB WTW WDAY WYNN XEL XYL YUM ZBRA ZBH ZTS
"""

SYMBOLS: tuple[str, ...] = ("SPY", *_LISTED.split())
SPY = 0
INDEX = {symbol: index for index, symbol in enumerate(SYMBOLS)}
NAMES = pl.Series("symbol", SYMBOLS)

HASH_FACTOR, HASH_MODULUS = 31, 2**32
BASE_DOLLARS, BASE_RANGE_DOLLARS = 25, 475

# Attention: shares, in per mille, of bursts and prints that go to a named symbol; the rest walks the whole list.
HOT_PER_MILLE = {
    "SPY": 80, "NVDA": 40, "TSLA": 40, "AAPL": 30, "AMZN": 20, "AMD": 20, "META": 20, "MSFT": 20, "PLTR": 20, "GOOGL": 15,
    "COIN": 10, "AVGO": 10, "NFLX": 10, "INTC": 5, "BAC": 5, "F": 5,
}  # fmt: skip
PER_MILLE = 1000

# Annual volatility: SPY's, and the range of the others.
SPY_VOLATILITY, LOWEST_VOLATILITY, VOLATILITY_STEP, VOLATILITY_STEPS = 0.15, 0.18, 0.01, 48

# One class of three quotes options in nickels throughout; the others in pennies below the penny limit, SPY in pennies always.
NICKEL_ONE_IN = 4
TAPES = ("A", "B", "C")
SPY_TAPE = "B"


def name_hash(symbol: str) -> int:
    """Hash a symbol as reference 17.2 does: 32-bit, factor 31."""
    value = 0
    for character in symbol:
        value = (HASH_FACTOR * value + ord(character)) % HASH_MODULUS
    return value


_HASHES = [name_hash(symbol) for symbol in SYMBOLS]

BASES: Floats = np.array([BASE_DOLLARS + value % BASE_RANGE_DOLLARS for value in _HASHES], dtype=np.float64)
"""The one price base of each symbol, dollars: its options' underlying and its shares start there."""

VOLATILITIES: Floats = np.array([LOWEST_VOLATILITY + VOLATILITY_STEP * (value % VOLATILITY_STEPS) for value in _HASHES])
VOLATILITIES[SPY] = SPY_VOLATILITY

IS_HOT = np.array([symbol in HOT_PER_MILLE for symbol in SYMBOLS])
IS_NICKEL = np.array([value % NICKEL_ONE_IN == 0 for value in _HASHES]) & ~IS_HOT
TAPE = pl.Series("tape", [SPY_TAPE if index == SPY else TAPES[value % len(TAPES)] for index, value in enumerate(_HASHES)])

# Strike step, dollars: SPY's, and of the others by price base (reference 17.3).
SPY_STRIKE_STEP, STRIKE_STEP_BY_BASE = 1.0, ((200.0, 10.0), (100.0, 5.0), (0.0, 2.5))
STRIKE_STEPS: Floats = np.array([next(step for least, step in STRIKE_STEP_BY_BASE if base >= least) for base in BASES])
STRIKE_STEPS[SPY] = SPY_STRIKE_STEP

_HOT_INDEXES: Ints = np.array([INDEX[symbol] for symbol in HOT_PER_MILLE], dtype=np.int64)
_HOT_BOUNDS: Ints = np.cumsum(list(HOT_PER_MILLE.values()), dtype=np.int64)


def choose(draws: Ints, walk: Ints) -> Ints:
    """Choose symbol indexes: a named one by attention (draws in 0..999), else the one at `walk` in the list."""
    place = np.searchsorted(_HOT_BOUNDS, draws, side="right")
    hot = place < len(_HOT_INDEXES)
    return np.where(hot, _HOT_INDEXES[np.minimum(place, len(_HOT_INDEXES) - 1)], walk % len(SYMBOLS))
