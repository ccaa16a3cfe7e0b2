import threading
from types import SimpleNamespace

import confluent_kafka
import pytest

from flowapp.engine.producer import KafkaProducer, MemoryProducer, Producer, Sent


def test_memory_producer_keeps_what_it_was_given_in_order() -> None:
    producer: Producer = MemoryProducer()
    producer.send("t", [b"a", b"b"], keys=[b"SPY", None], partitions=[3, 4], timestamps=[1, 2], headers=[("run", b"r")])
    assert isinstance(producer, MemoryProducer)
    assert producer.sent == [Sent("t", 3, b"SPY", b"a", 1, (("run", b"r"),)), Sent("t", 4, None, b"b", 2, (("run", b"r"),))]
    assert producer.depth() == 2
    producer.flush()
    assert producer.depth() == 0


def test_sequences_of_unequal_length_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        MemoryProducer().send("t", [b"a"], keys=[], partitions=[0], timestamps=[0])


def test_a_full_queue_blocks_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowapp.engine.producer.QUEUE_MAX_MESSAGES", 10)
    producer = KafkaProducer("127.0.0.1:1", on_fatal=print)
    sender = threading.Thread(
        target=producer.send,
        args=("t", [b"x"] * 25),
        kwargs={"keys": [None] * 25, "partitions": [0] * 25, "timestamps": [1] * 25},
        daemon=True,
    )
    sender.start()
    sender.join(timeout=0.5)
    assert sender.is_alive()
    assert producer.depth() == 10
    producer._producer.purge()
    sender.join(timeout=0.5)
    producer._producer.purge()
    sender.join(timeout=10)
    assert not sender.is_alive()
    producer._closed.set()
    producer._poller.join()


def test_a_fatal_error_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    reasons: list[str] = []
    producer = KafkaProducer("127.0.0.1:1", on_fatal=reasons.append)
    producer._closed.set()
    producer._poller.join()

    def fenced(timeout: float) -> int:
        raise confluent_kafka.KafkaException(confluent_kafka.KafkaError(confluent_kafka.KafkaError._FATAL))

    monkeypatch.setattr(producer, "_producer", SimpleNamespace(flush=fenced, poll=fenced))
    producer.flush()
    assert len(reasons) == 1
    assert reasons[0].startswith("the producer can no longer guarantee order and completeness")
