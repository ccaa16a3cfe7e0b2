"""Options flow and off-exchange prints in real time."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__"]


def __getattr__(name: str) -> Any:
    # `faust -A flowapp` asks for `app`; nothing else should load Faust.
    if name == "app":
        from flowapp.worker import main_app

        globals()["app"] = app = main_app()
        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
