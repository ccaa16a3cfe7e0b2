from dataclasses import dataclass

import polars as pl
import pytest

from flowapp.engine.poll import Poll, Run
from flowapp.errors import FoldError


@dataclass
class Record:
    offset: int
    value: bytes = b"v"
    key: bytes | None = None
    timestamp: int = 0


def records(first: int, last: int) -> list[Record]:
    return [Record(offset, b"%d" % offset) for offset in range(first, last + 1)]


def test_runs_of_a_partition_are_put_together_in_order() -> None:
    poll = Poll.of([Run(1, records(5, 6), 0), Run(0, records(0, 1), 0, 9), Run(1, records(7, 7), 0, 20)], {0: -1, 1: 4})
    assert poll.values == [b"5", b"6", b"7", b"0", b"1"]
    assert poll.partitions.tolist() == [1, 1, 1, 0, 0]
    assert poll.offsets.tolist() == [5, 6, 7, 0, 1]
    assert poll.last == {1: 7, 0: 1}
    assert poll.log_ends == {0: 9, 1: 20}
    assert poll.row_of(0, 1) == 4


def test_what_is_applied_already_is_skipped() -> None:
    poll = Poll.of([Run(0, records(0, 4), 0)], {0: 2})
    assert poll.offsets.tolist() == [3, 4]
    assert Poll.of([Run(0, records(0, 4), 0)], {0: 4}).records == []
    assert Poll.of([Run(0, records(0, 4), 0)], {0: 4}).last == {}


def test_a_missing_record_before_a_run_stops_the_worker() -> None:
    with pytest.raises(FoldError, match="expected offset 3, the log continued at 4"):
        Poll.of([Run(0, records(4, 5), 0)], {0: 2})
    with pytest.raises(FoldError, match="expected offset 6, the log continued at 7"):
        Poll.of([Run(0, records(3, 5), 0), Run(0, records(7, 8), 0)], {0: 2})


def test_a_missing_record_within_a_run_stops_the_worker() -> None:
    with pytest.raises(FoldError, match="offsets 3 to 6 hold 3 records"):
        Poll.of([Run(0, [*records(3, 4), *records(6, 6)], 0)], {0: 2})


def test_decoded_rows_get_their_origins() -> None:
    poll = Poll.of([Run(2, records(5, 8), 0)], {2: 4})
    frame = poll.frame(pl.DataFrame({"x": [1, 2], "_row": [1, 3]}), "_row")
    assert frame.to_dict(as_series=False) == {"x": [1, 2], "_partition": [2, 2], "_offset": [6, 8]}
