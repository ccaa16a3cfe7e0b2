"""Settings: where values come from, what is refused, what is derived."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowapp.errors import SettingError
from flowapp.settings import Settings, read_dotenv, tape_namespace, variable_table
from flowapp.settings_command import example_text

NOWHERE = Path("/nonexistent/.env")
ROOT = Path(__file__).parents[2]


def load(**environ: str) -> Settings:
    return Settings.load(environ, dotenv=NOWHERE)


def test_without_an_environment_every_setting_has_its_default() -> None:
    assert load() == Settings()
    assert load().environment() == {}


def test_the_environment_wins_over_dotenv_and_an_override_over_both(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("TICK_MS=100\nWORKER_ID=1\n# TICK_MS=7\n\nexport RULES='reference'\nSYNTHETIC_SEED=5 # five\n")
    settings = Settings.load({"TICK_MS": "200"}, dotenv=dotenv, worker_id=9)
    assert (settings.tick_ms, settings.worker_id, settings.rules, settings.synthetic_seed) == (200, 9, "reference", 5)


def test_a_line_of_dotenv_without_a_value_is_refused_by_its_number(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("TICK_MS=100\nnonsense\n")
    with pytest.raises(SettingError, match=r"\.env:2 was 'nonsense'; allowed: NAME=value"):
        read_dotenv(dotenv)


def test_every_wrong_value_is_named_with_what_is_allowed() -> None:
    with pytest.raises(SettingError) as caught:
        load(TOPIC_PARTITIONS="none", RULES="mine", OPTIONS_SIGNAL_MIN_NOTIONAL="nan", FLOW_NAMESPACE="Has Space")
    text = str(caught.value)
    assert "TOPIC_PARTITIONS was 'none'; allowed: a whole number >= 1 and <= 1024" in text
    assert "RULES was 'mine'; allowed: one of reference, standard" in text
    assert "OPTIONS_SIGNAL_MIN_NOTIONAL was 'nan'; allowed: a number >= 0" in text
    assert "FLOW_NAMESPACE was 'Has Space'" in text


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"SYNTHETIC_RATE": "10", "EMIT_INTERVAL_MS": "50"}, "SYNTHETIC_RATE was 10 and EMIT_INTERVAL_MS was 50"),
        (
            {"NBBO_MAX_AGE_MS": "900", "OPTIONS_SIGNAL_NBBO_MAX_AGE_MS": "1500"},
            "NBBO_MAX_AGE_MS was 900 and OPTIONS_SIGNAL_NBBO_MAX_AGE_MS was 1500",
        ),
        ({"TOPIC_PLACEMENT": "SPY=8"}, "TOPIC_PLACEMENT was SPY=8; allowed: partitions 0 to 7"),
        ({"TOPIC_PLACEMENT": "SPY"}, "TOPIC_PLACEMENT was 'SPY'"),
        ({"OPTIONS_INGEST_ADAPTER": "telepathy"}, "allowed: one of synthetic"),
        ({"SYNTHETIC_START": "yesterday"}, "SYNTHETIC_START was 'yesterday'; allowed: milliseconds since 1970 UTC, or an ISO date or time"),
        ({"TESTING_MODE": "perhaps"}, "TESTING_MODE was 'perhaps'"),
    ],
)
def test_values_that_contradict_or_make_no_sense_are_refused(environ: dict[str, str], message: str) -> None:
    with pytest.raises(SettingError) as caught:
        load(**environ)
    assert message in str(caught.value)


def test_equal_aliases_are_accepted() -> None:
    assert load(SYNTHETIC_RATE="10", EMIT_INTERVAL_MS="100").synthetic_rate == 10
    assert load(NBBO_MAX_AGE_MS="900").options_signal_nbbo_max_age_ms == 900
    assert load(NBBO_MAX_AGE_MS="900", RULES="reference").nbbo_max_age_ms == 900


def test_values_are_read_as_what_they_mean() -> None:
    settings = load(
        TOPIC_PLACEMENT="tsla=5, SPY=3",
        OPTIONS_SIGNAL_ETF_UNDERLYINGS="spy, qqq,spy",
        SYNTHETIC_START="2024-03-01T14:30:00Z",
        TESTING_MODE="Yes",
        OPTIONS_FILES="a.csv, b.csv",
    )
    assert settings.topic_placement == (("SPY", 3), ("TSLA", 5))
    assert settings.options_signal_etf_underlyings == ("SPY", "QQQ")
    assert settings.synthetic_start == 1_709_303_400_000
    assert settings.testing_mode is True
    assert settings.options_files == ("a.csv", "b.csv")


@pytest.mark.parametrize(
    ("environ", "namespace"),
    [
        ({}, "demo"),
        ({"FLOW_NAMESPACE": "mine_2"}, "mine_2"),
        ({"OPTIONS_INGEST_ADAPTER": "files", "OPTIONS_FILES": "/x/OPRA-2024.03.01.trades.dbn.zst"}, "tape_opra_2024"),
        ({"OPTIONS_FILES": "/x/y.csv"}, "demo"),
        ({"EQUITIES_INGEST_ADAPTER": "files", "EQUITIES_FILES": "Tape A.csv"}, "tape_tape_a"),
    ],
)
def test_the_namespace_follows_from_the_feeds_unless_it_is_named(environ: dict[str, str], namespace: str) -> None:
    assert load(**environ).namespace == namespace


@given(st.text(min_size=1).filter(lambda text: "/" not in text and "\0" not in text))
def test_every_file_name_gives_a_namespace_that_is_allowed(name: str) -> None:
    namespace = tape_namespace(name)
    assert load(FLOW_NAMESPACE=namespace).namespace == namespace


def test_ports_shift_together_and_metrics_follow_the_worker() -> None:
    settings = load(FLOW_PORT_OFFSET="100", WORKER_ID="2")
    assert settings.bootstrap == "127.0.0.1:19192"
    assert settings.registry_url == "http://127.0.0.1:18181/apis/ccompat/v7"
    assert settings.metrics_port == 9566


def test_a_path_in_the_registry_url_is_kept() -> None:
    assert load(SCHEMA_REGISTRY_URL="https://host/some/path/").registry_url == "https://host/some/path"


def test_a_child_that_gets_the_environment_has_the_same_settings() -> None:
    settings = dataclasses.replace(load(), topic_placement=(("SPY", 3),), testing_mode=True, synthetic_start=5, flow_speed=0.5)
    for complete in (False, True):
        assert Settings.load(settings.environment(complete), dotenv=NOWHERE) == settings
    assert len(settings.environment(complete=True)) == len(variable_table())


def test_the_configuration_hash_changes_with_rules_and_with_nothing_else() -> None:
    assert load(FLOW_HOME="/x", TICK_MS="500", WORKER_ID="4").config_hash == load().config_hash
    assert load(CLUSTER_WINDOW_MS="501").config_hash != load().config_hash
    assert load(NBBO_MAX_AGE_MS="1500").config_hash == load().config_hash
    assert load(NBBO_MAX_AGE_MS="900").config_hash == load(OPTIONS_SIGNAL_NBBO_MAX_AGE_MS="900").config_hash


def test_settings_do_not_change_after_being_read() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        load().tick_ms = 1  # type: ignore[misc]


def test_the_example_file_is_the_variable_table() -> None:
    assert (ROOT / ".env.example").read_text(encoding="utf-8") == example_text(), "run: flow settings --example > .env.example"


def test_the_example_file_with_every_line_switched_on_changes_nothing(tmp_path: Path) -> None:
    lines = [line[1:] if line.startswith("#") and line[1:2].isupper() and "=" in line else line for line in example_text().splitlines()]
    dotenv = tmp_path / ".env"
    dotenv.write_text("\n".join(line for line in lines if not line.startswith("# ")))
    assert set(read_dotenv(dotenv)) == {name for name, *_ in variable_table()}
    assert Settings.load({}, dotenv=dotenv) == load()


def test_home_is_absolute_and_understands_a_tilde() -> None:
    assert load(FLOW_HOME="~/x").home == Path(os.path.expanduser("~/x"))
    assert load(FLOW_HOME="x").home == Path.cwd() / "x"
