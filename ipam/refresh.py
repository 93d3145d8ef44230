"""When a source is read, by whom, and what is remembered of it.

Sources are independent of each other. Each has a lock file that is held while it is read, so that a hundred
ADDs query the cloud once; the kernel drops the lock when its holder dies. The read itself happens outside of
any transaction. It must not know how a source is read.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING
from zlib import crc32

from ipam.errors import IpamError, SourceEmpty, SourceUnreadable, StoreUnavailable
from ipam.filelock import file_lock
from ipam.model import SourceState
from ipam.pool import merge, offered
from ipam.store import records, source_records

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ipam.model import Listing, SourceConfig
    from ipam.pool import Changes
    from ipam.store.database import Store
    from ipam.store.read_only import ReadOnlyStore
    from ipam.store.transaction import Row, Transaction

    Reader = Callable[[SourceConfig, float, str], Listing]

LONGEST_BACK_OFF = 60.0
"""Seconds; the longest pause before a failing source is read again (a Retry-After may be longer)."""
FIRST_BACK_OFF = 1.0
"""Seconds, doubled each time: while nothing is known, a node that has just booted waits for the source."""

_ATTEMPT = "UPDATE source SET reading = 1, attempt_at = ?, attempt_wall = ? WHERE key = ?"
_SUCCEEDED = """
    UPDATE source SET name = ?, applied = ?, success_at = ?, success_wall = ?, listed = ?, reading = 0,
        error = '', error_kind = '', remedy = '', failures = 0, retry_at = NULL
    WHERE key = ?
"""
_FAILED = """
    UPDATE source SET name = CASE WHEN name = '' THEN environment ELSE name END, error = ?, reading = 0,
        error_kind = ?, remedy = ?, failures = failures + 1, retry_at = ?
    WHERE key = ?
"""


def lock_name(key: str) -> str:
    """The name of the file that is locked while a source is read."""
    return f"source-{crc32(key.encode()):08x}.lock"


def source_state(tx: Transaction, config: SourceConfig) -> SourceState:
    """What is remembered of one source."""
    row = source_records.row_of_source(tx, config.key)
    return SourceState("", config=config) if row is None else source_records.state_from(row, tx.now)


def refresh(
    store: Store | ReadOnlyStore,
    run_dir: Path,
    reader: Reader | None,
    config: SourceConfig,
    *,
    deadline: float,
    force: bool,
    in_use: bool,
) -> SourceState:
    """See ``Ipam.refresh``."""
    until = time.monotonic() + deadline
    known, due, reading = store.read(partial(_seen, config=config, force=force))
    nothing_known = known.success_age is None
    if not (due or (nothing_known and reading)):
        return _as_known(store, known, config)
    lock = run_dir / lock_name(config.key)
    # If something is known there is no reason to wait for another process that is reading.
    wait_until = until if nothing_known else time.monotonic()
    try:
        with file_lock(lock, wait_until):
            if store.write(partial(_attempt, config=config, force=force, in_use=in_use, seen=known)):
                return _read(store, reader, config, until - time.monotonic())
    except TimeoutError:
        pass
    except OSError as error:
        raise StoreUnavailable(
            f"{lock} can't be locked: {error.strerror}", "Make the directory writable for root."
        ) from error
    return _as_known(store, store.read(lambda tx: source_state(tx, config)), config)


def _seen(tx: Transaction, *, config: SourceConfig, force: bool) -> tuple[SourceState, bool, bool]:
    """What is known, whether a read is due, and whether an attempt has no outcome: it is in progress, or its
    process was killed.
    """
    row = source_records.row_of_source(tx, config.key)
    return source_state(tx, config), force or _due(row, config, tx.now), bool(row and row["reading"])


def _due(row: Row | None, config: SourceConfig, now: float) -> bool:
    if row is None or row["attempt_at"] is None:
        return True
    if row["retry_at"] is not None:
        if now < row["retry_at"]:
            return False
        if row["success_at"] is None:
            return True  # its pause is over, and nothing is known
    return bool(now - row["attempt_at"] >= config.query_interval)


def _attempt(tx: Transaction, *, config: SourceConfig, force: bool, in_use: bool, seen: SourceState) -> bool:
    """Record an attempt to read the source; False when another process made one meanwhile.

    The lock is held: an attempt without an outcome is one whose process was killed.
    """
    row = source_records.row_of_source(tx, config.key)
    asked_meanwhile = row is not None and row["attempt_wall"] != seen.last_attempt_at
    unfinished = row is not None and row["reading"]
    if not (_due(row, config, tx.now) or unfinished or (force and not asked_meanwhile)):
        return False
    source_records.make_row(tx, config)
    if in_use:
        source_records.note_use(tx, config.key)
    tx.change_one(_ATTEMPT, tx.now, tx.wall, config.key)
    tx.count(f"source_reads {config.key}")
    return True


def _read(
    store: Store | ReadOnlyStore, reader: Reader | None, config: SourceConfig, seconds: float
) -> SourceState:
    last = store.read(lambda tx: source_state(tx, config)).source
    try:
        listing = _reader(reader)(config, seconds, last)
        unchanged = store.write(partial(_unchanged, config=config, listing=listing))
        if unchanged is not None:
            return unchanged
        addresses = offered(listing)
    except IpamError as error:
        store.write(partial(_failed, config=config, error=error))
        raise
    except MemoryError:
        # This process's error, not the source's: left as if killed, so the next one reads at once.
        raise
    except Exception as error:
        # A reader that crashes on an unexpected document must not affect pods more than one that reports it.
        unreadable = SourceUnreadable(
            f"source {config.environment}: {type(error).__name__}: {error}",
            "The source returned something unexpected; see the log for details.",
        )
        store.write(partial(_failed, config=config, error=unreadable))
        raise unreadable from error
    state = None
    while state is None:
        generation, rows = store.read(partial(_offers, config=config))
        # Comparing thousands of addresses takes milliseconds: outside, where it holds up no ADD.
        changes = merge(addresses, source_records.known_offers(rows))
        state = store.write(
            partial(
                _succeeded,
                config=config,
                generation=generation,
                changes=changes,
                listing=listing,
                listed=len(addresses),
            )
        )
    return state


def _offers(tx: Transaction, *, config: SourceConfig) -> tuple[str, list[Row]]:
    row = source_records.row_of_source(tx, config.key)
    return tx.generation, [] if row is None else tx.rows(source_records.OFFERED, row["id"])


def _succeeded(
    tx: Transaction,
    *,
    config: SourceConfig,
    generation: str,
    changes: Changes,
    listing: Listing,
    listed: int,
) -> SourceState | None:
    """Write what was read; None when the store that ``changes`` were found for was replaced meanwhile."""
    if tx.generation != generation:
        return None
    source_records.make_row(tx, config)
    row = source_records.row_of_source(tx, config.key)
    if row is not None:
        source_records.apply(tx, row["id"], listing, changes)
    records.name_configurations(tx, listing)
    return _remember(tx, config, listing, listed)


def _unchanged(tx: Transaction, *, config: SourceConfig, listing: Listing) -> SourceState | None:
    """Record that the listing is the same as last time; None when it is not.

    The addresses marked as listed are those of the last listing, so with the same one again there is
    nothing to do, unless some address is on its way out.
    """
    row = source_records.row_of_source(tx, config.key)
    if row is None or not listing.digest or row["applied"] != _applied(listing):
        return None
    if tx.one(source_records.MISSED, row["id"]) is not None:
        return None
    return _remember(tx, config, listing, row["listed"])


def _remember(tx: Transaction, config: SourceConfig, listing: Listing, listed: int) -> SourceState:
    tx.change_one(_SUCCEEDED, listing.source, _applied(listing), tx.now, tx.wall, listed, config.key)
    row = source_records.row_of_source(tx, config.key)
    if row is not None:
        source_records.settle(tx, row["id"])
    return source_state(tx, config)


def _applied(listing: Listing) -> str:
    return f"{listing.digest}|{listing.source}" if listing.digest else ""


def _failed(tx: Transaction, *, config: SourceConfig, error: IpamError) -> None:
    source_records.make_row(tx, config)
    row = source_records.row_of_source(tx, config.key)
    failures = 0 if row is None else min(row["failures"], 16)
    if row is None or row["success_at"] is None:
        pause = min(FIRST_BACK_OFF * 2**failures, config.query_interval)
    else:
        longest = max(LONGEST_BACK_OFF, config.query_interval)
        pause = min(config.query_interval * 2**failures, longest)
    if isinstance(error, SourceUnreadable):
        pause = max(pause, error.retry_after)
    tx.count(f"source_errors {config.key}")
    tx.change_one(_FAILED, str(error), type(error).__name__, error.remedy, tx.now + pause, config.key)


def _as_known(store: Store | ReadOnlyStore, state: SourceState, config: SourceConfig) -> SourceState:
    """Use what is known; if that is nothing, raise the error of the last attempt."""
    if not state.error or state.success_age is not None:
        return state
    row = store.read(lambda tx: source_records.row_of_source(tx, config.key))
    empty = row is not None and row["error_kind"] == SourceEmpty.__name__
    words = f"{state.error} (last tried {state.attempt_age or 0:.0f} s ago, again in {state.retry_in:.0f} s)"
    raise SourceEmpty(words, state.remedy) if empty else SourceUnreadable(words, state.remedy, state.retry_in)


def _reader(reader: Reader | None) -> Reader:
    if reader is not None:
        return reader
    from ipam import sources

    return sources.read
