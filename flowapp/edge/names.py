"""Texts that recur, as small numbers: contracts, underlyings, venues."""

from __future__ import annotations

import polars as pl

from flowapp.edge.order import Ints

NO_NAME = -1


class Names:
    """Numbers texts from 0 in the order in which they appear; the numbers are this object's own."""

    def __init__(self) -> None:
        self._type = pl.Categorical(pl.Categories.random("flowapp"))
        # Holding a column of them keeps the numbering alive.
        self._anchor = pl.Series([], dtype=self._type)
        self.known = pl.Series([], dtype=pl.String)

    def numbers(self, texts: pl.Series) -> tuple[Ints, pl.Series]:
        """Return the number of each text, NO_NAME for null, and the texts that are new, in order of their numbers."""
        column = texts.cast(self._type)
        codes = column.to_physical().cast(pl.Int64)
        top, fresh = codes.max(), self.known.clear()
        if isinstance(top, int) and top >= len(self.known):
            unseen = pl.DataFrame({"text": texts, "code": codes}).filter(pl.col("code") >= len(self.known)).unique("code").sort("code")
            assert unseen["code"].to_list() == list(range(len(self.known), top + 1))
            fresh, self._anchor = unseen["text"], pl.concat([self._anchor, unseen["text"].cast(self._type)])
            self.known = pl.concat([self.known, fresh], rechunk=True)
        return codes.fill_null(NO_NAME).to_numpy(), fresh

    def texts(self, numbers: Ints) -> pl.Series:
        """Return the texts of numbers, null for NO_NAME."""
        column = pl.Series(numbers)
        return self.known.gather(pl.select(pl.when(column != NO_NAME).then(column)).to_series())
