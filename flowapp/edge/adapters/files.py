"""Recorded files as feeds: which of the readers a file is for."""

from __future__ import annotations

from flowapp.edge.adapters.dbn import open_dbn
from flowapp.edge.adapters.tape import RecordedFile, check_file
from flowapp.edge.adapters.thetadata import is_thetadata, open_thetadata
from flowapp.errors import SourceError

ZSTD_MAGIC, DBN_MAGIC = b"\x28\xb5\x2f\xfd", b"DBN"
HEADER_BYTES = 4096


def open_file(name: str) -> RecordedFile:
    """Open a recorded file; what it is, is told by its first bytes.

    Raises:
        SourceError: names the file, what is wrong with it and what can be read.
    """
    opened = check_file(name)
    try:
        with opened.path.open("rb") as file:
            head = file.read(HEADER_BYTES)
    except OSError as error:
        raise SourceError(f"{opened.path} cannot be read: {error.strerror}") from error
    if head.startswith((ZSTD_MAGIC, DBN_MAGIC)):
        return open_dbn(opened)
    header = head.split(b"\n", 1)[0]
    if is_thetadata(header):
        return open_thetadata(opened, header)
    raise SourceError(f"{opened.path} is neither a Databento file (DBN, also as .zst) nor a ThetaData trade-with-quote CSV")
