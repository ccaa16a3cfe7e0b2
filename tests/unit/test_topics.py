"""Topics: names, and that placement is Kafka's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowapp import topics
from flowapp.settings import Settings
from flowapp.topic_admin import plans


@pytest.mark.parametrize(
    ("data", "expected"),
    # org.apache.kafka.common.utils.UtilsTest.testMurmur2
    [(b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536), (b"abc", 479470107)],
)
def test_the_hash_is_kafkas_own(data: bytes, expected: int) -> None:
    assert topics.murmur2(data) == expected & 0xFFFFFFFF


def test_the_two_busiest_underlyings_collide_unless_placed() -> None:
    assert topics.partition_of("SPY", 8) == topics.partition_of("TSLA", 8)
    assert topics.partition_of("spy", 8, (("SPY", 3), ("TSLA", 5))) == 3
    assert topics.partition_of("TSLA", 8, (("SPY", 3), ("TSLA", 5))) == 5


@given(st.text(max_size=12), st.integers(1, 1024))
def test_every_underlying_has_a_partition_that_exists_whatever_its_case(underlying: str, partitions: int) -> None:
    number = topics.partition_of(underlying, partitions)
    assert 0 <= number < partitions
    assert topics.partition_of(underlying.upper(), partitions) == number


def test_names_of_a_namespace() -> None:
    assert topics.full_name("demo", topics.FLOW_PACKETS) == "demo.flow.packets"
    assert topics.app_id("demo") == "flowapp.demo"
    assert topics.changelog_name("demo", "options") == "flowapp.demo-options-state-changelog"


def test_a_plan_has_every_topic_and_both_changelogs_with_event_time_and_no_end() -> None:
    wanted = plans(Settings(flow_namespace="x", topic_partitions=24, topic_retention_bytes=77))
    assert len({plan.name for plan in wanted}) == len(topics.ALL) + 2
    for plan in wanted:
        assert plan.config["retention.ms"] == "-1"
        assert plan.config["message.timestamp.type"] == "CreateTime"
        assert plan.partitions == (1 if plan.name in ("x.ops.runs", "x.ops.user_state") else 24)
        if plan.config["cleanup.policy"] == "delete":
            assert plan.config["retention.bytes"] == "77"
        else:
            assert plan.config["segment.ms"] == "600000"
