"""Agents that do nothing: what reading alone costs, through the stock driver and through ours."""

from __future__ import annotations

import logging
import sys
from typing import Any

import faust
import polars as pl

from flowapp import topics
from flowapp.core.fold import ERROR, Result, State
from flowapp.records.codec import Codec
from flowapp.records.registry import HttpRegistry
from flowapp.settings import Settings
from flowapp.worker import FlowApp, create_app, state_directory


class NothingFold:
    """Takes every record, changes nothing."""

    name = "options"
    input_topic = topics.OPTIONS_PRINTS
    version = 0
    rules = "none"
    config = "none"

    def judge(self, frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(pl.lit(None, pl.String).alias(ERROR))

    def apply(self, frame: pl.DataFrame, state: State) -> Result:
        return Result()


def intake_app() -> FlowApp:
    """Our transport, decoding and checkpoints around a fold that does nothing."""
    settings = Settings.load()
    app = create_app(settings, Codec(HttpRegistry(settings.registry_url)))
    app.add_fold(NothingFold())
    return app


def stock_app() -> Any:
    """Stock Faust: its own driver, an agent that does nothing, records as they come."""
    settings = Settings.load()
    folder = state_directory(settings)
    folder.mkdir(parents=True, exist_ok=True)
    app = faust.App(
        topics.app_id(settings.namespace),
        broker=f"kafka://{settings.bootstrap}",
        datadir=folder,
        topic_partitions=settings.topic_partitions,
        topic_disable_leader=True,
        topic_allow_declare=False,
        autodiscover=False,
    )
    source = app.topic(topics.full_name(settings.namespace, topics.OPTIONS_PRINTS), value_serializer="raw", value_type=bytes)

    @app.agent(source)  # type: ignore[untyped-decorator]
    async def nothing(stream: Any) -> None:
        async for _ in stream:
            pass

    return app


def main() -> None:
    """Run `python -m flowapp.bench.nothing intake|stock worker ...` as Faust's own command would."""
    kind, *words = sys.argv[1:]
    logging.getLogger("flowapp").setLevel(logging.INFO)
    app = {"intake": intake_app, "stock": stock_app}[kind]()
    sys.argv = ["faust", *words]
    app.main()


if __name__ == "__main__":
    main()
