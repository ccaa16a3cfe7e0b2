"""What the namespace's Run records say about sources: finished ones, unfinished ones, and how they were read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from flowapp.edge.feeds import Feeds
from flowapp.errors import NamespaceError
from flowapp.runs import Row
from flowapp.settings import Settings

KIND = "source"
RUNNING, FINISHED = "running", "finished"


def reading(settings: Settings) -> dict[str, Any]:
    """Return the settings that decide which records a source becomes."""
    return {
        "TICK_MS": settings.tick_ms,
        "EDGE_REORDER_MS": settings.edge_reorder_ms,
        "TRF_DELAY_MS": settings.trf_delay_ms,
        "CLUSTER_WINDOW_MS": settings.cluster_window_ms,
        "TESTING_THROTTLE_MS": settings.testing_throttle_ms if settings.testing_mode else None,
    }


def row(settings: Settings, feeds: Feeds, partitions: Sequence[int], state: str, events: int = 0) -> dict[str, Any]:
    """Return the record of a run over some partitions."""
    detail = {"partitions": list(partitions), "reading": reading(settings), "live": feeds.live, "events": events}
    return {
        "key": _key(feeds.run, partitions), "kind": KIND, "run": feeds.run, "sources": feeds.sources, "state": state,
        "options_feed": feeds.options.name if feeds.options else None, "equities_feed": feeds.equities.name if feeds.equities else None,
        "detail": json.dumps(detail, sort_keys=True),
    }  # fmt: skip


def is_finished(rows: Mapping[str, Row], settings: Settings, feeds: Feeds, partitions: Sequence[int]) -> bool:
    """Whether this source was read to its end into these partitions.

    Raises:
        NamespaceError: it was read under other settings, or another source was begun here and not finished.
    """
    if feeds.live:
        return False
    finished: set[int] = set()
    for known in (found for found in rows.values() if found["kind"] == KIND):
        detail = json.loads(known["detail"])
        shared = set(detail["partitions"]) & set(partitions)
        if known["run"] == feeds.run:
            _refuse_other_reading(settings, detail["reading"])
            finished |= shared if known["state"] == FINISHED else set()
        elif shared and known["state"] == RUNNING and not detail["live"] and not _superseded(rows, known["run"], shared):
            named = ", ".join(known["sources"]) or known["run"]
            raise NamespaceError(
                f"namespace {settings.namespace} holds the beginning of another source ({named}); finish that one first, choose another "
                f"FLOW_NAMESPACE, or clear it with `flow reset {settings.namespace}`"
            )
    return finished >= set(partitions)


def _superseded(rows: Mapping[str, Row], run: str, partitions: set[int]) -> bool:
    """Whether runs under another split of the partitions finished what one began."""
    done: set[int] = set()
    for known in rows.values():
        if known["kind"] == KIND and known["run"] == run and known["state"] == FINISHED:
            done |= set(json.loads(known["detail"])["partitions"])
    return done >= partitions


def _refuse_other_reading(settings: Settings, before: Mapping[str, Any]) -> None:
    now = reading(settings)
    wrong = [f"{name} was {before[name]} and is {now[name]} now" for name in now if before.get(name) != now[name]]
    if wrong:
        raise NamespaceError(
            f"namespace {settings.namespace} was filled from this source under other settings ({'; '.join(wrong)}); set them as they were, "
            f"choose another FLOW_NAMESPACE, or clear it with `flow reset {settings.namespace}`"
        )


def _key(run: str, partitions: Sequence[int]) -> str:
    return f"{KIND}:{run}:{','.join(map(str, partitions))}"
