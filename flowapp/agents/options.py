"""The options agent: option prints and ticks in, signal prints and flow packets out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowapp.core.options import OptionsFold

if TYPE_CHECKING:
    from flowapp.worker import FlowApp


def register(app: FlowApp) -> None:
    """Add the agent to an app."""
    app.add_fold(OptionsFold(app.settings))
