"""The tables of the store and how an older store becomes one of today: SQL text only.

It must not know how SQLite is called. ``MIGRATIONS[n]`` takes a store from version n to n + 1; a new
store is made by all of them. A released entry is never edited, only followed by another.
"""

from __future__ import annotations

from typing import Final

APPLICATION_ID: Final = 0x415A564E
"""``AZVN`` in the file's header: tells our store from any other SQLite file."""

_VERSION_1: Final = (
    # What every transaction looks at first. One row.
    """
    CREATE TABLE node (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        generation TEXT NOT NULL,
        boot_id TEXT NOT NULL,
        adopted INTEGER NOT NULL
    ) STRICT
    """,
    # One row is one address with, if any, its one holder: an address can't be held twice, and there
    # is no second table that could disagree. Times ending in _at are seconds of CLOCK_BOOTTIME,
    # those ending in _wall are for people.
    """
    CREATE TABLE address (
        id INTEGER PRIMARY KEY,
        ip BLOB NOT NULL UNIQUE,
        family INTEGER NOT NULL,
        address TEXT NOT NULL,
        gateway TEXT NOT NULL,
        nic_mac TEXT NOT NULL,
        source TEXT NOT NULL,
        listed INTEGER NOT NULL,
        misses INTEGER NOT NULL DEFAULT 0,
        released_at REAL,
        quarantined_until REAL,
        quarantine_reason TEXT NOT NULL DEFAULT '',
        container_id TEXT,
        ifname TEXT,
        network TEXT,
        holder TEXT,
        pod_namespace TEXT,
        pod_name TEXT,
        pod_uid TEXT,
        netns TEXT,
        netns_id TEXT,
        host_ifname TEXT,
        call_id TEXT,
        created_wall REAL,
        confirmed INTEGER,
        missing_since REAL,
        CHECK ((container_id IS NULL) = (ifname IS NULL)),
        CHECK ((container_id IS NULL) = (created_wall IS NULL))
    ) STRICT
    """,
    # The order of choice (pool.order_of_choice): NULL sorts first, so never used comes first.
    """
    CREATE INDEX next_free ON address (family, released_at, ip)
    WHERE container_id IS NULL AND listed = 1 AND quarantined_until IS NULL
    """,
    "CREATE UNIQUE INDEX by_attachment ON address (container_id, ifname) WHERE container_id IS NOT NULL",
    "CREATE INDEX by_pod ON address (pod_namespace, pod_name) WHERE container_id IS NOT NULL",
    "CREATE INDEX in_quarantine ON address (quarantined_until) WHERE quarantined_until IS NOT NULL",
    "CREATE INDEX unlisted ON address (listed) WHERE listed = 0",
    """
    CREATE TABLE source (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        name TEXT NOT NULL DEFAULT '',
        applied TEXT NOT NULL DEFAULT '',
        config TEXT NOT NULL DEFAULT '',
        reading INTEGER NOT NULL DEFAULT 0,
        attempt_at REAL,
        attempt_wall REAL,
        success_at REAL,
        success_wall REAL,
        error TEXT NOT NULL DEFAULT '',
        error_kind TEXT NOT NULL DEFAULT '',
        remedy TEXT NOT NULL DEFAULT '',
        listed INTEGER NOT NULL DEFAULT 0,
        failures INTEGER NOT NULL DEFAULT 0,
        retry_at REAL
    ) STRICT
    """,
    "INSERT INTO source (id) VALUES (1)",
    "CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID",
)

_VERSION_2: Final = (
    # What the cloud calls an address, for people: the names that one source said in its last listing.
    """
    CREATE TABLE ip_configuration (
        source TEXT NOT NULL,
        ip BLOB NOT NULL,
        name TEXT NOT NULL,
        PRIMARY KEY (source, ip)
    ) STRICT, WITHOUT ROWID
    """,
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_VERSION_1, _VERSION_2)

FORGET_HOLDERS: Final = (
    # Another boot: the pods are gone with their namespaces, CLOCK_BOOTTIME started again from zero.
    # The addresses stay, they belong to the NIC; one that was only known from a pod does not.
    "DELETE FROM address WHERE source = ''",
    """
    UPDATE address SET released_at = NULL, quarantined_until = NULL, quarantine_reason = '',
        container_id = NULL, ifname = NULL, network = NULL, holder = NULL, pod_namespace = NULL,
        pod_name = NULL, pod_uid = NULL, netns = NULL, netns_id = NULL, host_ifname = NULL,
        call_id = NULL, created_wall = NULL, confirmed = NULL, missing_since = NULL
    """,
    "UPDATE source SET reading = 0, attempt_at = NULL, success_at = NULL, failures = 0, retry_at = NULL",
)

END_QUARANTINES: Final = """
    UPDATE address SET quarantined_until = NULL, quarantine_reason = '' WHERE quarantined_until <= ?
"""
