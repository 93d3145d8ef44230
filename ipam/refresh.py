"""When a source is read, by whom, and what is remembered of it.

``source.lock`` is held while a source is read, so that a hundred ADDs ask the cloud once; the kernel
drops it when its holder dies. The read itself happens outside of any transaction. It must not know
how a source is read.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from ipam.errors import IpamError, SourceEmpty, SourceUnreadable, StoreUnavailable
from ipam.filelock import file_lock
from ipam.model import SourceConfig, SourceState
from ipam.pool import merge, offered
from ipam.store import records

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ipam.model import Listing
    from ipam.pool import Changes
    from ipam.store.database import Store
    from ipam.store.transaction import Transaction
    from ipam.store.view import StoreView

    Reader = Callable[[SourceConfig, float, str], Listing]

LOCK = "source.lock"
LONGEST_BACK_OFF = 60.0
"""Seconds; a source that keeps failing is asked no less often than this (unless it said so itself)."""
FIRST_BACK_OFF = 1.0
"""Seconds, doubled each time: while nothing is known, a node that has just booted waits for the source."""
OTHER_CONFIG_INTERVAL = 1.0
"""Seconds between reads when the configuration changed: two networks must not undo the interval."""

_SUCCEEDED = """
    UPDATE source SET name = ?, applied = ?, config = ?, success_at = ?, success_wall = ?, listed = ?,
        reading = 0, error = '', error_kind = '', remedy = '', failures = 0, retry_at = NULL
"""
_FAILED = """
    UPDATE source SET name = CASE WHEN name = '' THEN ? ELSE name END, config = ?, error = ?,
        reading = 0, error_kind = ?, remedy = ?, failures = failures + 1, retry_at = ?
"""


def source_state(tx: Transaction) -> SourceState:
    """What is remembered of the source."""
    row = tx.one("SELECT * FROM source")
    if row is None:
        return SourceState("")
    return SourceState(
        source=row["name"],
        last_attempt_at=row["attempt_wall"],
        last_success_at=row["success_wall"],
        success_age=None if row["success_at"] is None else max(0.0, tx.now - row["success_at"]),
        attempt_age=None if row["attempt_at"] is None else max(0.0, tx.now - row["attempt_at"]),
        error=row["error"],
        listed=row["listed"],
        remedy=row["remedy"],
        failures=row["failures"],
        retry_in=max(0.0, (row["retry_at"] or 0.0) - tx.now),
        asked=None if row["attempt_at"] is None else _config_of(row["config"]),
    )


def refresh(
    store: Store | StoreView,
    run_dir: Path,
    reader: Reader | None,
    config: SourceConfig,
    *,
    deadline: float,
    force: bool,
    patient: bool,
) -> SourceState:
    """See ``Ipam.refresh``."""
    until = time.monotonic() + deadline
    while True:
        known, due, reading = store.read(
            lambda tx: (source_state(tx), force or _due(tx, config), _reading(tx))
        )
        nothing_known = known.last_success_at is None
        if due or (nothing_known and reading):
            # With something known there is no reason to wait for whoever reads already.
            wait_until = until if nothing_known else time.monotonic()
            try:
                with file_lock(run_dir / LOCK, wait_until):
                    if store.write(partial(_attempt, config=config, force=force, seen=known)):
                        return _read(store, reader, config, until - time.monotonic())
            except TimeoutError:
                return _as_known(store, store.read(source_state))
            except OSError as error:
                raise StoreUnavailable(
                    f"{run_dir / LOCK} can't be locked: {error.strerror}",
                    "Make the directory writable for root.",
                ) from error
        known, pause = store.read(lambda tx: (source_state(tx), _until_its_turn(tx, config, patient=patient)))
        if pause is None or time.monotonic() + pause > until:
            return _as_known(store, known)
        time.sleep(pause)


def _until_its_turn(tx: Transaction, config: SourceConfig, *, patient: bool) -> float | None:
    """Seconds after which this configuration may be read, where nothing is known because another one failed,
    which says nothing of this one: an agent that was not told yet may have asked for another NIC. None where
    there is no such reason to wait. ``patient``: what is known is of no use.
    """
    row = tx.one("SELECT attempt_at, success_at, config, retry_at FROM source")
    if row is None or row["attempt_at"] is None or row["config"] == _config_key(config):
        return None
    if not patient and (row["success_at"] is not None or row["retry_at"] is None):
        return None
    return max(0.0, float(row["attempt_at"]) + OTHER_CONFIG_INTERVAL - tx.now)


def _due(tx: Transaction, config: SourceConfig) -> bool:
    row = tx.one("SELECT attempt_at, success_at, config, retry_at FROM source")
    if row is None or row["attempt_at"] is None:
        return True
    same = row["config"] == _config_key(config)
    if row["retry_at"] is not None and tx.now < row["retry_at"]:
        return not same and bool(tx.now - row["attempt_at"] >= OTHER_CONFIG_INTERVAL)
    if row["retry_at"] is not None and row["success_at"] is None:
        return True  # its pause is over, and nothing is known
    interval = config.query_interval if same else min(config.query_interval, OTHER_CONFIG_INTERVAL)
    return bool(tx.now - row["attempt_at"] >= interval)


def _reading(tx: Transaction) -> bool:
    """An attempt was begun and has no outcome: somebody reads, or was killed while reading."""
    row = tx.one("SELECT reading FROM source")
    return row is not None and bool(row["reading"])


def _attempt(tx: Transaction, config: SourceConfig, *, force: bool, seen: SourceState) -> bool:
    """Write that the source is asked now; False when somebody else asked it meanwhile.

    The lock is held: an attempt without an outcome is one whose process was killed.
    """
    row = tx.one("SELECT attempt_wall FROM source")
    asked_meanwhile = row is not None and row["attempt_wall"] != seen.last_attempt_at
    if not (_due(tx, config) or _reading(tx) or (force and not asked_meanwhile)):
        return False
    tx.change_one("UPDATE source SET reading = 1, attempt_at = ?, attempt_wall = ?", tx.now, tx.wall)
    tx.count("source_reads")
    return True


def _read(
    store: Store | StoreView, reader: Reader | None, config: SourceConfig, seconds: float
) -> SourceState:
    last = store.read(source_state).source
    try:
        listing = _reader(reader)(config, seconds, last)
        unchanged = store.write(partial(_unchanged, config=config, listing=listing))
        if unchanged is not None:
            return unchanged
        addresses = offered(listing, config.uplink_macs)
    except IpamError as error:
        store.write(partial(_failed, config=config, error=error))
        raise
    except MemoryError:
        # This process's trouble, not the source's: left as if it had been killed, so the next asks at once.
        raise
    except Exception as error:
        # A reader that breaks on a document it did not foresee must cost no pod more than one that
        # says so.
        unreadable = SourceUnreadable(
            f"source {config.environment}: {type(error).__name__}: {error}",
            "The source answered something unexpected; the log has the details.",
        )
        store.write(partial(_failed, config=config, error=unreadable))
        raise unreadable from error
    state = None
    while state is None:
        generation, rows = store.read(lambda tx: (tx.generation, tx.rows(records.POOL)))
        # Comparing thousands of addresses takes milliseconds: outside, where it holds up no ADD.
        changes = merge(addresses, records.known_addresses(rows))
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
    records.apply(tx, changes, listing.source)
    records.name_configurations(tx, listing)
    _remember(tx, config, listing, listed)
    return source_state(tx)


def _unchanged(tx: Transaction, *, config: SourceConfig, listing: Listing) -> SourceState | None:
    """Write that the source said just what it said last time; None when it did not.

    The addresses marked as listed are those of the last listing, so with the same one again there is
    nothing to do, unless some address is on its way out.
    """
    row = tx.one("SELECT applied, listed FROM source")
    applied = _applied(config, listing)
    if row is None or not applied or row["applied"] != applied:
        return None
    if tx.one("SELECT 1 FROM address WHERE listed = 0") is not None:
        return None
    _remember(tx, config, listing, row["listed"])
    return source_state(tx)


def _remember(tx: Transaction, config: SourceConfig, listing: Listing, listed: int) -> None:
    applied = _applied(config, listing)
    tx.change_one(_SUCCEEDED, listing.source, applied, _config_key(config), tx.now, tx.wall, listed)


def _applied(config: SourceConfig, listing: Listing) -> str:
    return f"{listing.digest}|{listing.source}|{_config_key(config)}" if listing.digest else ""


def _failed(tx: Transaction, *, config: SourceConfig, error: IpamError) -> None:
    row = tx.one("SELECT failures, success_at FROM source")
    failures = 0 if row is None else min(row["failures"], 16)
    if row is None or row["success_at"] is None:
        pause = min(FIRST_BACK_OFF * 2**failures, config.query_interval)
    else:
        longest = max(LONGEST_BACK_OFF, config.query_interval)
        pause = min(config.query_interval * 2**failures, longest)
    if isinstance(error, SourceUnreadable):
        pause = max(pause, error.retry_after)
    tx.count("source_errors")
    tx.change_one(
        _FAILED,
        config.environment,
        _config_key(config),
        str(error),
        type(error).__name__,
        error.remedy,
        tx.now + pause,
    )


def _as_known(store: Store | StoreView, state: SourceState) -> SourceState:
    """Go on with what is known; when that is nothing, with the error that made it so."""
    if not state.error or state.last_success_at is not None:
        return state
    kind = store.read(lambda tx: tx.one("SELECT error_kind FROM source"))
    empty = kind is not None and kind["error_kind"] == SourceEmpty.__name__
    words = f"{state.error} (asked {state.attempt_age or 0:.0f} s ago, again in {state.retry_in:.0f} s)"
    raise SourceEmpty(words, state.remedy) if empty else SourceUnreadable(words, state.remedy, state.retry_in)


def _config_key(config: SourceConfig) -> str:
    macs = "*" if config.uplink_macs is None else ",".join(sorted(config.uplink_macs))
    return f"{config.environment}|{config.file}|{macs}"


def _config_of(key: str) -> SourceConfig | None:
    environment, _, rest = key.partition("|")
    file, found, macs = rest.rpartition("|")
    if not found:
        return None  # the outcome of the first attempt is not written yet
    return SourceConfig(
        environment=environment, file=file, uplink_macs=None if macs == "*" else tuple(macs.split(","))
    )


def _reader(reader: Reader | None) -> Reader:
    if reader is not None:
        return reader
    from ipam import sources

    return sources.read
