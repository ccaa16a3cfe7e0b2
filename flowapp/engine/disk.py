"""A partition's rows on the local disk: RocksDB with small, explicit buffers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import rocksdict

# Where the changelog goes on from; written in the same batch as the rows before it, and never sent to the changelog.
CHANGELOG_KEY = b"__changelog"

BLOCK_CACHE_BYTES = 8 << 20
WRITE_BUFFER_BYTES = 8 << 20
_cache = rocksdict.Cache(BLOCK_CACHE_BYTES)


def _options() -> rocksdict.Options:
    options = rocksdict.Options(raw_mode=True)
    blocks = rocksdict.BlockBasedOptions()
    # One cache for all partitions of the process: the default would be gigabytes for each.
    blocks.set_block_cache(_cache)
    blocks.set_bloom_filter(10, False)
    options.set_block_based_table_factory(blocks)
    options.create_if_missing(True)
    options.set_write_buffer_size(WRITE_BUFFER_BYTES)
    options.set_max_write_buffer_number(2)
    options.set_keep_log_file_num(1)
    options.set_max_background_jobs(1)
    options.set_max_open_files(256)
    return options


class Disk:
    """Rows of one partition; `close` gives the directory's lock back at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._unlogged = rocksdict.WriteOptions()
        self._unlogged.disable_wal = True
        self._db = self._open()

    def _open(self) -> rocksdict.Rdict:
        self.path.mkdir(parents=True, exist_ok=True)
        return rocksdict.Rdict(str(self.path), _options())

    def get(self, key: bytes) -> bytes | None:
        """Return the row under `key`."""
        row: bytes | None = self._db.get(key)
        return row

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the rows whose key begins with `prefix`, ascending by key."""
        rows = self._db.iter()
        rows.seek(prefix)
        while rows.valid():
            key = rows.key()
            if not key.startswith(prefix):
                return
            yield key, rows.value()
            rows.next()

    def write(self, rows: Mapping[bytes, bytes | None], changelog_offset: int | None = None, *, logged: bool = True) -> None:
        """Write rows (None deletes) and the offset from which the changelog goes on, all or nothing.

        Args:
            logged: False during a bulk load, which `flush` makes durable at its end.
        """
        batch = rocksdict.WriteBatch(raw_mode=True)
        put, delete = batch.put, batch.delete
        for key, row in rows.items():
            if row is None:
                delete(key)
            else:
                put(key, row)
        if changelog_offset is not None:
            put(CHANGELOG_KEY, b"%d" % changelog_offset)
        if logged:
            self._db.write(batch)
        else:
            self._db.write(batch, self._unlogged)

    @property
    def changelog_offset(self) -> int | None:
        """Offset from which the changelog goes on, None when the disk holds no whole state."""
        row = self.get(CHANGELOG_KEY)
        return None if row is None else int(row)

    def flush(self) -> None:
        """Make unlogged writes durable."""
        self._db.flush()

    def wipe(self) -> None:
        """Forget everything."""
        self.close()
        shutil.rmtree(self.path)
        self._db = self._open()

    def close(self) -> None:
        """Give the directory back."""
        self._db.close()
