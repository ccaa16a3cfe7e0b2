from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowapp.core.fold import MemoryState, Result
from flowapp.engine.disk import CHANGELOG_KEY, Disk
from flowapp.engine.state import PartitionState
from flowapp.errors import FoldError

KEYS = st.sampled_from([b"a/1", b"a/2", b"a/3", b"b/1", b"b/2"])
STEPS = st.lists(
    st.one_of(st.tuples(st.just("put"), KEYS, st.binary(max_size=3)), st.tuples(st.sampled_from(["del", "cut", "land"]), KEYS))
)


@given(STEPS)
def test_layers_read_like_one_mapping(steps: list[tuple[str, bytes, bytes] | tuple[str, bytes]]) -> None:
    disk, plain = MemoryState(), MemoryState()
    state = PartitionState(disk)
    leaving = None
    for step in steps:
        if step[0] == "put":
            result = Result(changed={step[1]: step[2]})  # type: ignore[misc]
        elif step[0] == "del":
            result = Result(deleted=[step[1]])
        elif step[0] == "cut" and leaving is None:
            leaving = dict(state.cut())
            leaving = leaving or None
            continue
        elif step[0] == "land" and leaving is not None:
            disk.merge(
                Result(changed={k: v for k, v in leaving.items() if v is not None}, deleted=[k for k, v in leaving.items() if v is None])
            )
            state.landed()
            leaving = None
            continue
        else:
            continue
        state.merge(result)
        plain.merge(result)
        for prefix in (b"", b"a/", b"b/", b"c"):
            assert list(state.scan(prefix)) == list(plain.scan(prefix))
        assert [state.get(key) for key in (b"a/1", b"a/2", b"a/3", b"b/1", b"b/2")] == [
            plain.get(key) for key in (b"a/1", b"a/2", b"a/3", b"b/1", b"b/2")
        ]


def test_a_fold_may_not_write_the_engines_rows() -> None:
    with pytest.raises(FoldError, match="own prefix"):
        PartitionState(MemoryState()).merge(Result(changed={b"__position": b""}))


def test_a_fold_does_not_see_the_engines_rows() -> None:
    assert list(PartitionState(MemoryState({b"__position": b"x", b"k": b"y"})).scan(b"")) == [(b"k", b"y")]


def test_a_second_cut_waits_for_the_first() -> None:
    state = PartitionState(MemoryState())
    state.merge(Result(changed={b"k": b"v"}))
    state.cut()
    with pytest.raises(FoldError, match="another one was on its way"):
        state.cut()


def test_a_disk_keeps_rows_and_the_changelog_offset_together(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "0")
    assert disk.changelog_offset is None
    disk.write({b"a/1": b"x", b"a/2": b"y", b"b/1": b"z"}, 17)
    disk.write({b"a/1": None})
    disk.close()
    again = Disk(tmp_path / "0")
    assert again.changelog_offset == 17
    assert list(again.scan(b"a/")) == [(b"a/2", b"y")]
    assert again.get(b"a/1") is None
    assert [key for key, _ in again.scan(b"")] == [CHANGELOG_KEY, b"a/2", b"b/1"]
    again.close()


def test_a_closed_disk_can_be_opened_at_once_and_a_wiped_one_is_empty(tmp_path: Path) -> None:
    for number in range(5):
        disk = Disk(tmp_path / "0")
        disk.write({b"k": b"%d" % number}, number, logged=number % 2 == 0)
        disk.flush()
        disk.close()
    disk = Disk(tmp_path / "0")
    assert disk.get(b"k") == b"4"
    disk.wipe()
    assert list(disk.scan(b"")) == []
    disk.close()
