"""How the parts are configured: ports, addresses, flags."""

from __future__ import annotations

import dataclasses
import socket
from pathlib import Path

import pytest

from flowapp.embedded import java, ports, programs, runfile
from flowapp.embedded.command import effective_settings, locked
from flowapp.embedded.kafka import Broker
from flowapp.embedded.locks import FileLock, is_held
from flowapp.embedded.registry import Registry
from flowapp.errors import PortTaken, SourceError, StackError
from flowapp.settings import Settings
from tests.conftest import free_port_offset
from tests.mocks.tape import write_tape


def settings_in(home: Path, **values: str) -> Settings:
    return Settings.load({"FLOW_HOME": str(home), **values}, dotenv=Path("/dev/null"))


def properties(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines())


def test_the_broker_listens_on_loopback_only(tmp_path: Path) -> None:
    values = properties(Broker(settings_in(tmp_path, FLOW_PORT_OFFSET="7"), tmp_path).configuration())
    assert values["listeners"] == "PLAINTEXT://127.0.0.1:19099,CONTROLLER://127.0.0.1:19100"
    assert values["advertised.listeners"] == "PLAINTEXT://127.0.0.1:19099"
    assert values["controller.quorum.voters"] == "1@127.0.0.1:19100"


def test_the_broker_creates_no_topic_by_itself_and_keeps_offsets_and_records(tmp_path: Path) -> None:
    values = properties(Broker(settings_in(tmp_path), tmp_path).configuration())
    assert values["auto.create.topics.enable"] == "false"
    assert values["log.retention.ms"] == values["log.retention.bytes"] == "-1"
    assert int(values["offsets.retention.minutes"]) > 5_000_000
    assert (values["broker.session.timeout.ms"], values["broker.heartbeat.interval.ms"]) == ("3000", "500")
    assert int(values["message.max.bytes"]) == int(values["replica.fetch.max.bytes"]) == 8 << 20


def test_a_home_with_foreign_letters_is_written_as_java_reads_it(tmp_path: Path) -> None:
    values = properties(Broker(settings_in(tmp_path / "caf\u00e9 1"), tmp_path).configuration())
    assert values["log.dirs"] == f"{tmp_path}/caf\\u00e9 1/broker/data"


def test_the_broker_runs_small_and_can_log(tmp_path: Path) -> None:
    arguments = Broker(settings_in(tmp_path), tmp_path / "jars").command().arguments
    for flag in (
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Xmx512m",
        f"-Dlog4j2.configurationFile={tmp_path / 'broker/log4j2.properties'}",
    ):
        assert flag in arguments
    assert arguments[-2:] == ("kafka.Kafka", str(tmp_path / "broker" / "server.properties"))


def test_the_registry_listens_on_loopback_only_and_loses_nothing(tmp_path: Path) -> None:
    variables = Registry(settings_in(tmp_path, FLOW_PORT_OFFSET="9"), tmp_path).variables()
    assert variables["QUARKUS_HTTP_HOST"] == variables["QUARKUS_MANAGEMENT_HOST"] == "127.0.0.1"
    assert (variables["QUARKUS_HTTP_PORT"], variables["QUARKUS_MANAGEMENT_PORT"]) == ("18090", "18091")
    assert variables["APICURIO_DATASOURCE_URL"].endswith(";WRITE_DELAY=0")


def test_java_settings_of_the_user_do_not_reach_the_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "QUARKUS_HTTP_HOST", "KAFKA_OPTS"):
        monkeypatch.setenv(name, "foreign")
    monkeypatch.setenv("UNRELATED", "kept")
    assert "foreign" not in java.environment().values()
    assert java.environment({"A": "b"})["UNRELATED"] == "kept"


def test_java_comes_from_the_wheel() -> None:
    assert java.executable().is_file()


def test_the_worker_has_no_web_server_and_metrics_on_loopback(tmp_path: Path) -> None:
    worker = programs.Worker(settings_in(tmp_path, WORKER_ID="3"))
    assert worker.ports == {"metrics port": 9467}
    arguments = worker.command().arguments
    assert arguments[1:] == ("-m", "faust", "-A", "flowapp", "worker", "-L", "uvloop", "--without-web", "--web-host", "127.0.0.1")


def test_programs_get_every_setting_so_that_dotenv_changes_nothing(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, SYNTHETIC_MARKET_MODE="active", TOPIC_PLACEMENT="SPY=3")
    environment = programs.environment(settings)
    assert environment["SYNTHETIC_MARKET_MODE"] == "active"
    assert Settings.load(environment, dotenv=Path("/dev/null")) == settings


def test_two_stacks_with_an_offset_between_them_share_no_port(tmp_path: Path) -> None:
    def all_ports(offset: str) -> set[int]:
        settings = settings_in(tmp_path, FLOW_PORT_OFFSET=offset)
        parts = (Broker(settings, tmp_path), Registry(settings, tmp_path), programs.Worker(settings))
        return {port for part in parts for port in part.ports.values()}

    assert len(all_ports("0") | all_ports("1000")) == 10


def test_a_port_in_use_is_refused_and_a_free_one_is_not() -> None:
    port = 19092 + free_port_offset()
    ports.require_free("broker", {"client port": port})
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        assert ports.answers(port)
        with pytest.raises(PortTaken, match=rf"port {port} .*client port of the broker.*FLOW_PORT_OFFSET"):
            ports.require_free("broker", {"client port": port})
    assert not ports.answers(port)


def test_a_lock_has_one_holder_who_is_named(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.lock"
    assert not is_held(path)
    with FileLock(path) as first:
        assert first.acquire()
        second = FileLock(path)
        assert not second.acquire()
        assert second.holder() is not None
        assert is_held(path)
    assert not is_held(path)


def test_a_second_stack_in_the_same_home_is_told_what_to_do(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    with locked(settings, [runfile.INFRA]):
        with pytest.raises(StackError, match=r"already runs.*FLOW_HOME and FLOW_PORT_OFFSET"), locked(settings, [runfile.INFRA]):
            pass
        with locked(settings, [runfile.services_scope("demo")]):
            pass
    with locked(settings, [runfile.INFRA]):
        pass


def test_a_second_worker_on_a_namespace_is_told_which_one(tmp_path: Path) -> None:
    settings, scope = settings_in(tmp_path), [runfile.services_scope("demo")]
    with locked(settings, scope), pytest.raises(StackError, match="namespace demo is already being worked on"), locked(settings, scope):
        pass


def test_a_file_takes_the_place_of_the_feeds_and_names_its_namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_tape(tmp_path / "day-1.csv", prints=1)
    settings = effective_settings(None, "day-1.csv")
    assert (settings.options_ingest_adapter, settings.options_files) == ("files", ("day-1.csv",))
    assert settings.equities_ingest_adapter == "none"
    assert settings.namespace == "tape_day_1"
    with pytest.raises(SourceError, match=r"no-such\.csv"):
        effective_settings(None, "no-such.csv")


def test_a_profile_wins_over_the_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SYNTHETIC_MARKET_MODE", "realistic")
    assert effective_settings("firehose", None).options_profile == "firehose"
    assert effective_settings(None, None).options_profile == "realistic"


def test_an_external_broker_and_registry_are_not_started(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, KAFKA_BOOTSTRAP_SERVERS="h:1", SCHEMA_REGISTRY_URL="http://r/base/")
    from flowapp.embedded import infra

    assert infra.services(settings) == []
    assert (settings.bootstrap, settings.registry_url) == ("h:1", "http://r/base")
    assert dataclasses.replace(settings, schema_registry_url="").embedded_registry
