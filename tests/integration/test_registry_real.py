"""The registry that the product runs with."""

from __future__ import annotations

import copy

import polars as pl
import pytest

from flowapp import topics
from flowapp.errors import RegistryUnavailable, SchemaError
from flowapp.records import schemas
from flowapp.records.codec import Codec
from flowapp.records.registry import HttpRegistry, check, register_all
from flowapp.settings import Settings
from tests.conftest import Running

TICK = pl.DataFrame({"w": [250], "seq": [1], "feed": ["synthetic"], "run": ["r1"]})


@pytest.fixture
def url(registry: Running, schemas_of_session: None, stack_settings: Settings) -> str:
    return stack_settings.registry_url


def test_registering_again_gives_the_same_ids_and_every_subject_is_fully_compatible(url: str, stack_settings: Settings) -> None:
    ids = register_all(stack_settings)
    assert register_all(stack_settings) == ids
    registry = HttpRegistry(url)
    assert {name: registry.id_of(name) for name in schemas.names()} == ids
    assert {registry.compatibility(name) for name in schemas.names()} == {"FULL_TRANSITIVE"}
    assert all(registry.schema_by_id(schema_id) == schemas.schema(name) for name, schema_id in ids.items())
    assert check(stack_settings) == []
    registry.close()


def test_an_incompatible_edit_is_refused_by_the_registry_too(url: str) -> None:
    registry = HttpRegistry(url)
    edited = copy.deepcopy(schemas.schema("Tick"))
    edited["fields"][0]["type"] = "double"
    with pytest.raises(SchemaError, match=r"refused subject Tick \(409\)"):
        registry.register("Tick", schemas.canonical(edited))
    assert list(registry.versions("Tick")) == [1]
    registry.close()


def test_an_id_that_no_schema_has_is_a_schema_error(url: str) -> None:
    registry = HttpRegistry(url)
    for schema_id in (0, 987654, 2**31 - 1, 2**32 - 1):
        with pytest.raises(SchemaError):
            registry.schema_by_id(schema_id)
    registry.close()


def test_a_registry_that_goes_away_is_waited_for_and_knows_its_ids_when_it_is_back(registry: Running, url: str) -> None:
    [value] = Codec(HttpRegistry(url)).encode("Tick", TICK)
    registry.kill()
    reader = Codec(HttpRegistry(url))
    with pytest.raises(RegistryUnavailable):
        reader.decode(topics.OPTIONS_PRINTS, [value])
    registry.start()
    assert reader.decode(topics.OPTIONS_PRINTS, [value]).frame["w"].to_list() == [250]
