"""The reference's own outputs, line by line; `python -m tests.vectors FILE...` compares."""
