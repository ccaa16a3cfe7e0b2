import random
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn

import polars as pl
import pytest

from flowapp import topics
from flowapp.core.fold import OFFSET, PARTITION, run
from flowapp.engine.metrics import Metrics
from flowapp.engine.partition import Cut
from flowapp.engine.poll import Run
from flowapp.engine.position import Position
from flowapp.engine.producer import MemoryProducer
from flowapp.engine.runner import Hooks, Runner
from flowapp.errors import RegistryUnavailable
from flowapp.records import schemas
from flowapp.records.codec import ROW, Codec, Decoded
from flowapp.records.registry import MemoryRegistry
from tests.mocks.partition import MemoryPartition, Record
from tests.mocks.tally import POISON, TallyCodec, TallyFold, encode
from tests.waiting import eventually

FOLD = TallyFold()


class Rig:
    """A runner with everything around it in memory."""

    def __init__(self, checkpoint_ms: int = 20, stored: Position | None = None) -> None:
        self.registry = MemoryRegistry()
        for name in schemas.names():
            self.registry.register(name, schemas.canonical_json(name))
        self.codec = TallyCodec(Codec(self.registry))
        self.producer = MemoryProducer()
        self.partitions: dict[int, MemoryPartition] = {}
        self.stored = stored
        self.acked: dict[int, int] = {}
        self.rooms = 0
        self.configured: list[int] = []
        self.on_commit: Callable[[Cut], None] = lambda cut: None
        self.metrics = Metrics()
        self.runner = Runner(
            FOLD, self.codec, self.producer, self.partition, Hooks(self.ack, self.room, self.configure),
            namespace="demo", worker="0", checkpoint_ms=checkpoint_ms, metrics=self.metrics,
        )  # fmt: skip

    def partition(self, number: int) -> MemoryPartition:
        self.partitions[number] = MemoryPartition(FOLD, number, self.stored, lambda cut: self.on_commit(cut))
        return self.partitions[number]

    def ack(self, partition: int, offset: int) -> None:
        self.acked[partition] = offset

    def room(self) -> None:
        self.rooms += 1

    def configure(self, partitions: object) -> None:
        self.configured += [p.place.partition for p in partitions]  # type: ignore[attr-defined]

    def applied(self) -> dict[int, int]:
        return {number: partition.offset for number, partition in self.partitions.items()}

    def sent(self, topic: str, partition: int) -> list[bytes]:
        name = topics.full_name("demo", topic)
        return [record.value for record in self.producer.sent if (record.topic, record.partition) == (name, partition)]


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.runner.revoke()


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect what the process would have ended with; the thread that ends it stops."""
    reasons: list[str] = []

    def end(reason: object, code: int | None = None) -> NoReturn:
        reasons.append(str(reason))
        raise SystemExit

    monkeypatch.setattr("flowapp.engine.runner.end_process", end)
    return reasons


def tape(count: int, seed: int = 1, odd: dict[int, bytes] | None = None) -> list[Record]:
    chance = random.Random(seed)
    made = []
    for offset in range(count):
        moment = 1_000 + offset
        tick = offset % 40 == 39
        value = encode(0, 0, moment, moment) if tick else encode(chance.randrange(20), chance.randrange(1, 1000), moment)
        made.append(Record(offset, (odd or {}).get(offset, value), b"k", moment))
    return made


def frame_of(codec: TallyCodec, records: list[Record], partition: int) -> pl.DataFrame:
    decoded = codec.decode("", [record.value for record in records]).frame
    offsets = [records[row].offset for row in decoded[ROW].to_list()]
    return decoded.drop(ROW).with_columns(pl.lit(partition, pl.Int64).alias(PARTITION), pl.Series(OFFSET, offsets, pl.Int64))


def feed(rig: Rig, tapes: dict[int, list[Record]], chance: random.Random, generation: int = 1) -> None:
    starts = dict.fromkeys(tapes, 0)
    while any(starts[p] < len(tapes[p]) for p in tapes):
        partition = chance.choice([p for p in tapes if starts[p] < len(tapes[p])])
        end = starts[partition] + chance.choice([1, 3, 50])
        rig.runner.offer(Run(partition, tapes[partition][starts[partition] : end], generation))
        starts[partition] = end


@pytest.mark.parametrize("seed", range(5))
def test_outputs_and_state_are_those_of_the_fold_run_in_process(rig: Rig, seed: int) -> None:
    tapes = {0: tape(500, seed), 3: tape(400, seed + 100)}
    rig.runner.assign([0, 3], 1)
    feed(rig, tapes, random.Random(seed))
    eventually(lambda: rig.acked == {0: 499, 3: 399})
    expected = run(FOLD, [frame_of(rig.codec, records, partition) for partition, records in tapes.items()])
    for topic, frame in expected.outputs.items():
        for partition in tapes:
            assert rig.sent(topic, partition) == rig.codec.encode("", frame.filter(pl.col("partition") == partition))
    for partition, state in expected.states.items():
        assert rig.partitions[partition].rows.rows == state.rows


def test_records_carry_key_and_time_and_packets_the_run_facts(rig: Rig) -> None:
    rig.runner.assign([0], 1)
    rig.runner.offer(Run(0, [Record(0, encode(7, 10, 1234)), Record(1, encode(0, 0, 1300, 1300))], 1))
    eventually(lambda: rig.acked == {0: 1})
    passed, packet = rig.producer.sent
    assert (passed.topic, passed.partition, passed.key, passed.timestamp, passed.headers) == (
        "demo.options.prints.signal",
        0,
        b"U7",
        1234,
        (),
    )
    assert (packet.topic, packet.partition, packet.key, packet.timestamp) == ("demo.flow.packets", 0, b"U7", 1300)
    assert [name for name, _ in packet.headers] == ["worker"]


def test_not_clean_is_written_before_any_output_and_clean_at_the_end(rig: Rig) -> None:
    sent_at_commit: list[int] = []
    rig.on_commit = lambda cut: sent_at_commit.append(len(rig.producer.sent))
    rig.runner.assign([0], 1)
    assert [p.clean for p in rig.partitions[0].commits] == [False]
    assert sent_at_commit == [0]
    rig.runner.offer(Run(0, tape(100), 1))
    eventually(lambda: rig.applied() == {0: 99})
    rig.runner.finish()
    commits = rig.partitions[0].commits
    assert [p.clean for p in commits][:-1] == [False] * (len(commits) - 1)
    assert (commits[-1].clean, commits[-1].offset) == (True, 99)
    assert [p.number for p in commits] == list(range(1, len(commits) + 1))
    assert rig.partitions[0].closed


def test_outputs_are_delivered_before_the_position_that_covers_them(rig: Rig) -> None:
    undelivered: list[int] = []
    rig.on_commit = lambda cut: undelivered.append(rig.producer.depth())
    rig.runner.assign([0], 1)
    rig.runner.offer(Run(0, tape(200), 1))
    eventually(lambda: rig.acked.get(0) == 199)
    assert undelivered == [0] * len(undelivered)
    assert rig.producer.delivered > 0


def test_refused_records_become_dead_letters_and_the_stream_goes_on(rig: Rig) -> None:
    odd = {5: b"garbage", 6: encode(1, -5, 1), 7: encode(1, POISON, 2)}
    records = tape(100, odd=odd)
    rig.runner.assign([0], 1)
    rig.runner.offer(Run(0, records, 1))
    eventually(lambda: rig.acked == {0: 99})
    values = rig.sent(topics.DEAD_LETTERS, 0)
    letters = Codec(rig.registry).decode(topics.DEAD_LETTERS, values).frame
    assert letters.select("id", "stage", "reason", "error", "offset", "raw", "key", "source_ts").rows() == [
        ("options.prints:0:5", "decode", "bad_record", "length", 5, b"garbage", b"k", 1005),
        ("options.prints:0:6", "validate", "validate", "amount was -5", 6, odd[6], b"k", 1006),
        ("options.prints:0:7", "fold", "fold", "ValueError: poison", 7, odd[7], b"k", 1007),
    ]
    good = [record for record in records if record.offset not in odd]
    expected = run(FOLD, frame_of(rig.codec, good, 0))
    assert rig.sent(topics.OPTIONS_SIGNAL, 0) == rig.codec.encode("", expected.outputs[topics.OPTIONS_SIGNAL])


def test_a_registry_that_is_down_is_waited_for(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowapp.engine.runner.REGISTRY_RETRY_SECONDS", 0.01)
    rig.registry.available = False
    rig.runner.assign([0], 1)
    rig.runner.offer(Run(0, tape(10, odd={3: b"garbage"}), 1))
    eventually(lambda: rig.applied() == {0: 9})
    assert rig.acked == {}
    rig.registry.available = True
    eventually(lambda: rig.acked == {0: 9})
    assert len(rig.sent(topics.DEAD_LETTERS, 0)) == 1


def test_a_stop_before_a_batch_is_decoded_is_clean(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(topic: str, values: object) -> Decoded:
        raise RegistryUnavailable("down")

    monkeypatch.setattr(rig.codec, "decode", unavailable)
    rig.runner.assign([0], 1)
    rig.runner.offer(Run(0, tape(10), 1))
    eventually(lambda: not rig.runner._line.idle)
    rig.runner.finish()
    assert [(p.clean, p.offset) for p in rig.partitions[0].commits] == [(False, -1), (True, -1)]


def test_a_stop_while_folded_outputs_cannot_be_encoded_is_not_clean(rig: Rig) -> None:
    rig.runner.assign([0], 1)
    rig.runner.offer(Run(0, tape(10), 1))
    eventually(lambda: rig.acked == {0: 9})
    rig.registry.available = False
    rig.runner.offer(Run(0, [Record(10, encode(1, -5, 1))], 1))
    eventually(lambda: rig.applied() == {0: 10})
    rig.runner.finish()
    assert rig.partitions[0].commits[-1].offset == 9
    assert not any(p.clean for p in rig.partitions[0].commits)


def test_below_emit_from_records_are_folded_and_nothing_is_sent() -> None:
    rig = Rig(stored=Position(-1, 1, 1, "mock", "a", True, emit_from=250))
    records = tape(400, odd={7: b"garbage", 300: b"garbage"})
    rig.runner.assign([0], 1)
    feed(rig, {0: records}, random.Random(1))
    eventually(lambda: rig.acked == {0: 399})
    expected = run(FOLD, frame_of(rig.codec, [r for r in records if r.value != b"garbage"], 0))
    for topic, frame in expected.outputs.items():
        assert rig.sent(topic, 0) == rig.codec.encode("", frame.filter(pl.col("offset") >= 250))
    assert len(rig.sent(topics.DEAD_LETTERS, 0)) == 1
    assert rig.partitions[0].rows.rows == expected.states[0].rows
    assert {p.emit_from for p in rig.partitions[0].commits} == {250}
    rig.runner.revoke()


def test_runs_of_an_older_assignment_are_dropped(rig: Rig) -> None:
    rig.runner.assign([0], 2)
    rig.runner.offer(Run(0, tape(10), 1))
    rig.runner.offer(Run(0, tape(5), 2))
    eventually(lambda: rig.acked == {0: 4})


def test_revocation_waits_for_a_checkpoint_in_flight_and_writes_nothing_more(rig: Rig) -> None:
    landing, go_on = threading.Event(), threading.Event()

    def hold(cut: Cut) -> None:
        if cut.position.offset >= 0:
            landing.set()
            assert go_on.wait(10)

    rig.on_commit = hold
    rig.runner.assign([0], 1)
    rig.runner.offer(Run(0, tape(10), 1))
    assert landing.wait(10)
    rig.runner.offer(Run(0, tape(20)[10:], 1))
    eventually(lambda: rig.applied() == {0: 19})
    revoking = threading.Thread(target=rig.runner.revoke)
    revoking.start()
    revoking.join(0.05)
    assert revoking.is_alive()
    go_on.set()
    revoking.join(10)
    assert [p.offset for p in rig.partitions[0].commits] == [-1, 9]
    assert rig.partitions[0].closed
    assert rig.runner.next_offsets() == {}


def test_a_checkpoint_that_fails_ends_the_process(rig: Rig, ended: list[str]) -> None:
    def fail(cut: Cut) -> None:
        if cut.position.offset >= 0:
            raise OSError("fenced")

    rig.on_commit = fail
    rig.runner.assign([0], 1)
    rig.runner.offer(Run(0, tape(10), 1))
    eventually(lambda: ended)
    assert ended == ["checkpoint of options.prints[0] up to offset 9 failed: fenced"]
    assert rig.acked == {}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_missing_record_ends_the_process(rig: Rig, ended: list[str]) -> None:
    rig.runner.assign([0], 1)
    rig.runner.offer(Run(0, tape(10)[3:], 1))
    eventually(lambda: ended)
    assert ended == ["partition 0: expected offset 0, the log continued at 3"]
    rig.runner._line.done()


def test_a_full_queue_says_so_and_then_that_there_is_room(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowapp.engine.runner.QUEUE_MAX_RECORDS", 100)
    rig.registry.available = False
    rig.runner.assign([0], 1)
    records = tape(300, odd={0: b"garbage"})
    assert rig.runner.offer(Run(0, records[:10], 1))
    eventually(lambda: not rig.runner._line.idle)
    assert rig.runner.offer(Run(0, records[10:60], 1))
    before = rig.rooms
    assert not rig.runner.offer(Run(0, records[60:160], 1))
    rig.registry.available = True
    eventually(lambda: rig.rooms > before and rig.applied() == {0: 159})


def test_configurations_are_recorded_where_they_begin_to_hold(rig: Rig) -> None:
    rig.runner.assign([0, 2], 1)
    assert rig.configured == [0, 2]
    known = Rig(stored=Position(4, 1, 1, "mock", "a", True))
    known.runner.assign([0], 1)
    assert known.configured == []
    known.runner.revoke()


def test_work_is_counted_once_a_batch(rig: Rig) -> None:
    rig.runner.assign([0], 1)
    rig.runner.offer(Run(0, tape(120, odd={3: b"garbage"}), 1, log_end=150))
    eventually(lambda: rig.acked == {0: 119})

    def figure(name: str, **labels: str) -> float | None:
        return rig.metrics.registry.get_sample_value(name, {"agent": "options", **labels})

    assert figure("flow_records_total") == 120
    assert figure("flow_batches_total") == 1
    assert figure("flow_lag_records", partition="0") == 30
    assert figure("flow_applied_offset", partition="0") == 119
    assert figure("flow_dead_letters_total", stage="decode") == 1
    assert figure("flow_outputs_total", topic=topics.FLOW_PACKETS) == len(rig.sent(topics.FLOW_PACKETS, 0))
    assert (figure("flow_checkpoints_total") or 0) >= 1
    assert (figure("flow_stage_seconds_total", stage="fold") or 0) > 0
