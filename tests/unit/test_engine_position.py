import pytest

from flowapp.engine import position as positions
from flowapp.engine.position import ANY_VERSION, Place, Position
from flowapp.errors import ConfigChanged, StateError
from tests.mocks.tally import TallyFold

PLACE = Place("options", "demo.options.prints", 3, "flowapp.demo-options-state-changelog")


def stored(**changes: object) -> Position:
    facts = {"offset": 41, "number": 7, "version": 1, "rules": "mock", "config": "a", "clean": False, **changes}
    return Position(**facts)  # type: ignore[arg-type]


def test_a_position_row_survives_its_bytes() -> None:
    assert positions.decode(positions.encode(stored(emit_from=9))) == stored(emit_from=9)
    assert positions.decode(None) is None


def test_bytes_that_are_no_position_row_are_an_error() -> None:
    with pytest.raises(StateError, match="position row was"):
        positions.decode(b"{}")


def test_the_same_rules_go_on() -> None:
    assert positions.check_fold(PLACE, stored(), TallyFold()) is True


def test_other_settings_after_an_unclean_stop_are_refused() -> None:
    with pytest.raises(ConfigChanged, match=r"configuration a -> b.*flow state accept-config --agent options"):
        positions.check_fold(PLACE, stored(), TallyFold(config="b"))


def test_other_settings_after_a_clean_stop_begin_to_hold() -> None:
    assert positions.check_fold(PLACE, stored(clean=True), TallyFold(config="b")) is False


def test_state_of_another_version_is_refused_and_names_the_rebuild() -> None:
    with pytest.raises(StateError, match=r"version 1, this program writes version 2; .*flow state rebuild --agent options"):
        positions.check_fold(PLACE, stored(clean=True), TallyFold(version=2))


def test_a_sought_position_fits_every_version() -> None:
    assert positions.check_fold(PLACE, stored(version=ANY_VERSION), TallyFold(version=2)) is False


def test_the_log_goes_on_behind_the_position() -> None:
    assert positions.check_log(PLACE, stored(), 10, 100) == 42
    assert positions.check_log(PLACE, stored(), 42, 42) == 42
    assert positions.check_log(PLACE, None, 0, 0) == 0


def test_a_position_below_the_start_of_the_log_names_the_lost_range() -> None:
    with pytest.raises(StateError, match="offsets 42 to 59 are lost, the log begins at 60"):
        positions.check_log(PLACE, stored(), 60, 100)
    with pytest.raises(StateError, match="offsets 0 to 4 are lost"):
        positions.check_log(PLACE, None, 5, 100)


def test_a_position_behind_the_end_of_the_log_is_refused() -> None:
    with pytest.raises(StateError, match=r"holds up to offset 41, but the log ends at 40: the topic was wiped"):
        positions.check_log(PLACE, stored(), 0, 40)


def test_a_disk_that_knows_more_than_the_changelog_is_refused() -> None:
    positions.check_disk(PLACE, 9, 9)
    with pytest.raises(StateError, match="topics were wiped and the state directory kept"):
        positions.check_disk(PLACE, 9, 3)
