"""The tables of the store, and how an older store is migrated: SQL text only.

It must not know how SQLite is called.
"""

from __future__ import annotations

from typing import Final

APPLICATION_ID: Final = 0x415A564E
"""``AZVN`` in the file's header: tells our store from any other SQLite file."""

_TABLES: Final = (
    # What every transaction looks at first. One row. Containers and copies of a machine's memory share its
    # boot id.
    """
    CREATE TABLE node (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        generation TEXT NOT NULL,
        boot_id TEXT NOT NULL,
        adopted INTEGER NOT NULL,
        machine_id TEXT NOT NULL DEFAULT ''
    ) STRICT
    """,
    # What the cloud calls an address, for people: the names that one source gave in its last listing.
    """
    CREATE TABLE IF NOT EXISTS ip_configuration (
        source TEXT NOT NULL,
        ip BLOB NOT NULL,
        name TEXT NOT NULL,
        PRIMARY KEY (source, ip)
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    # One row is one source that a network of the node uses; its key is SourceConfig.key. Nothing reads or
    # writes previous_success_at any more: it goes with the next format. One for it alone would cost a node
    # that is rolled back the times of release, as a store of a newer format is moved aside.
    """
    CREATE TABLE source (
        id INTEGER PRIMARY KEY,
        key TEXT NOT NULL UNIQUE,
        environment TEXT NOT NULL,
        file TEXT NOT NULL,
        name TEXT NOT NULL DEFAULT '',
        applied TEXT NOT NULL DEFAULT '',
        reading INTEGER NOT NULL DEFAULT 0,
        used_at REAL,
        attempt_at REAL,
        attempt_wall REAL,
        success_at REAL,
        success_wall REAL,
        previous_success_at REAL,
        error TEXT NOT NULL DEFAULT '',
        error_kind TEXT NOT NULL DEFAULT '',
        remedy TEXT NOT NULL DEFAULT '',
        listed INTEGER NOT NULL DEFAULT 0,
        failures INTEGER NOT NULL DEFAULT 0,
        retry_at REAL
    ) STRICT
    """,
    # The NICs of a source's last listing; addresses and subnets are separated by spaces.
    """
    CREATE TABLE nic (
        source INTEGER NOT NULL,
        mac TEXT NOT NULL,
        is_primary INTEGER,
        own_addresses TEXT NOT NULL DEFAULT '',
        subnets TEXT NOT NULL DEFAULT '',
        PRIMARY KEY (source, mac)
    ) STRICT, WITHOUT ROWID
    """,
    # One row is one address: its history, which outlives every listing, and, if any, its one holder with
    # what that was given. So an address can't be held twice, whoever lists it. Times ending in _at are
    # seconds of CLOCK_BOOTTIME, those ending in _wall are for people.
    # Nothing reads or writes host_ifname any more: as previous_success_at, it goes with the next format.
    """
    CREATE TABLE address (
        id INTEGER PRIMARY KEY,
        ip BLOB NOT NULL UNIQUE,
        family INTEGER NOT NULL,
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
        interface TEXT,
        gateway TEXT,
        nic_mac TEXT,
        source TEXT,
        adopted_at REAL,
        leaving_since REAL,
        CHECK ((container_id IS NULL) = (ifname IS NULL)),
        CHECK ((container_id IS NULL) = (created_wall IS NULL))
    ) STRICT
    """,
    # One row is one address as one source lists it.
    """
    CREATE TABLE offer (
        address INTEGER NOT NULL,
        source INTEGER NOT NULL,
        interface TEXT NOT NULL,
        gateway TEXT NOT NULL,
        nic_mac TEXT NOT NULL,
        misses INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (address, source)
    ) STRICT, WITHOUT ROWID
    """,
    # The order of choice (see pool): NULL sorts first, so never used comes first.
    """
    CREATE INDEX next_free ON address (family, released_at, ip)
    WHERE container_id IS NULL AND quarantined_until IS NULL
    """,
    """
    CREATE UNIQUE INDEX by_attachment ON address (container_id, ifname, family)
    WHERE container_id IS NOT NULL
    """,
    "CREATE INDEX by_pod ON address (pod_namespace, pod_name) WHERE container_id IS NOT NULL",
    "CREATE INDEX in_quarantine ON address (quarantined_until) WHERE quarantined_until IS NOT NULL",
    "CREATE INDEX adopted ON address (adopted_at) WHERE adopted_at IS NOT NULL",
    "CREATE INDEX missed ON offer (source) WHERE misses > 0",
    "CREATE INDEX leaving ON address (leaving_since) WHERE leaving_since IS NOT NULL",
)

_FROM_1: Final = (
    *(f"DROP INDEX {name}" for name in ("next_free", "by_attachment", "by_pod", "in_quarantine", "unlisted")),
    *(f"ALTER TABLE {name} RENAME TO {name}_1" for name in ("node", "counter", "source", "address")),
    *_TABLES,
    "INSERT INTO node SELECT *, '' FROM node_1",
    "INSERT INTO counter SELECT * FROM counter_1",
    # ``config`` was environment|file|MACs, and a file may have a | in its name.
    """
    INSERT INTO source (id, key, environment, file, name, attempt_wall, success_at, success_wall, error,
        error_kind, remedy, listed, failures, retry_at)
    SELECT 1, CASE WHEN environment IN ('auto', 'file') THEN environment || ':' || file ELSE environment END,
        environment, file, name, attempt_wall, success_at, success_wall, error, error_kind, remedy, listed,
        failures, retry_at
    FROM (
        SELECT *, substr(config, 1, length(environment_) - 1) AS environment,
            substr(config, length(environment_) + 1, length(rest) - length(environment_) - 1) AS file
        FROM (
            SELECT *, substr(config, 1, instr(config, '|')) AS environment_,
                rtrim(config, replace(config, '|', '')) AS rest
            FROM source_1 WHERE config != ''
        )
    )
    """,
    """
    INSERT INTO address SELECT id, ip, family, released_at, quarantined_until, quarantine_reason,
        container_id, ifname, network, holder, pod_namespace, pod_name, pod_uid, netns, netns_id,
        host_ifname, call_id, created_wall, confirmed, missing_since,
        CASE WHEN container_id IS NOT NULL THEN address END,
        CASE WHEN container_id IS NOT NULL THEN gateway END,
        CASE WHEN container_id IS NOT NULL THEN nic_mac END,
        CASE WHEN container_id IS NOT NULL THEN source END,
        CASE WHEN container_id IS NOT NULL AND source = '' THEN 0.0 END, NULL
    FROM address_1
    """,
    """
    INSERT INTO offer SELECT address_1.id, source.id, address, gateway, nic_mac, misses
    FROM address_1 JOIN source WHERE address_1.source != '' AND misses < 2
    """,
    "INSERT INTO nic (source, mac) SELECT DISTINCT source, nic_mac FROM offer",
    *(f"DROP TABLE {name}_1" for name in ("node", "counter", "source", "address")),
)

_FROM_3: Final = (
    "ALTER TABLE address ADD COLUMN leaving_since REAL",
    "CREATE INDEX leaving ON address (leaving_since) WHERE leaving_since IS NOT NULL",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_TABLES, _FROM_1, _FROM_1, _FROM_3)
"""``MIGRATIONS[n]`` makes a store of version n, 0 being an empty file, one of today, whose version is
``len(MIGRATIONS)``."""

FORGET_HOLDERS: Final = (
    # Another boot or machine: the pods are gone with their namespaces, CLOCK_BOOTTIME is another clock, and
    # what the sources listed may be another node's by now. It is kept to be looked at, but nothing of it is
    # given out before it was read again.
    "DELETE FROM address WHERE id NOT IN (SELECT address FROM offer)",
    """
    UPDATE address SET released_at = NULL, quarantined_until = NULL, quarantine_reason = '',
        container_id = NULL, ifname = NULL, network = NULL, holder = NULL, pod_namespace = NULL,
        pod_name = NULL, pod_uid = NULL, netns = NULL, netns_id = NULL, host_ifname = NULL,
        call_id = NULL, created_wall = NULL, confirmed = NULL, missing_since = NULL,
        interface = NULL, gateway = NULL, nic_mac = NULL, source = NULL, adopted_at = NULL
    """,
    # What is being taken from the NIC still is; its time was that of another clock.
    "UPDATE address SET leaving_since = 0.0 WHERE leaving_since IS NOT NULL",
    """
    UPDATE source SET reading = 0, used_at = NULL, attempt_at = NULL, success_at = NULL, failures = 0,
        retry_at = NULL
    """,
)

END_QUARANTINES: Final = """
    UPDATE address SET quarantined_until = NULL, quarantine_reason = '' WHERE quarantined_until <= ?
"""
