"""What an error of SQLite means: the file is damaged, the disk is full, it is locked, it may pass.

Pure: the result codes are SQLite's own (https://www.sqlite.org/rescode.html), and ``sqlite3`` is not loaded
for them. It must not know what is done about it.
"""

from __future__ import annotations

from ipam.store.transaction import StoreDamaged

BUSY, LOCKED, NOMEM, READONLY, IOERR, CORRUPT, FULL = 5, 6, 7, 8, 10, 11, 13
CANTOPEN, PROTOCOL, FORMAT, NOTADB = 14, 15, 24, 26
IOERR_SHORT_READ = IOERR | 2 << 8


def code_of(error: Exception) -> int:
    """The primary result code; 0 where it is not an error of SQLite."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def is_damage(error: Exception) -> bool:
    """Whether the file, not the machine, is at fault."""
    if isinstance(error, StoreDamaged):
        return True
    if getattr(error, "sqlite_errorcode", 0) == IOERR_SHORT_READ:
        return True
    if code_of(error) in {CORRUPT, NOTADB, FORMAT}:
        return True
    # A table or column that every store has is missing, or a text is not UTF-8.
    return str(error).startswith(("no such ", "Could not decode"))


def is_locked(error: Exception) -> bool:
    """Whether it was locked by another process for too long."""
    return code_of(error) in {BUSY, LOCKED, PROTOCOL}


def is_full(error: Exception) -> bool:
    """Whether the disk was full."""
    return code_of(error) == FULL


def is_passing(error: Exception) -> bool:
    """Whether it looks like files that were removed at the wrong moment."""
    return code_of(error) in {IOERR, CANTOPEN, READONLY}
