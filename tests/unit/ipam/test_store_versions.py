"""A store of an older format is brought up to date with all that is in it; one of a newer format, which an
azvnet that was rolled back finds, is moved aside and made anew from what is alive.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from ipam.errors import AdoptionNeeded, ReservationLost, StoreUnavailable
from ipam.ipam import Ipam
from ipam.model import PoolCounts, SourceConfig
from ipam.store import schema
from tests.unit.ipam.node import (
    ANY,
    CONFIG,
    MAC,
    Node,
    asking,
    attachment,
    confirm,
    counts,
    held,
    ips,
    listing_of,
    owner,
    refresh,
    release,
    reserve,
)

if TYPE_CHECKING:
    from ipam.model import Reservation

P1, P2, P3 = attachment("pod-1"), attachment("pod-2"), attachment("pod-3")

VERSION_1 = (
    """
    CREATE TABLE node (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        generation TEXT NOT NULL,
        boot_id TEXT NOT NULL,
        adopted INTEGER NOT NULL
    ) STRICT
    """,
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
"""The tables of format 1. Format 2 has one more."""


def of_version_1(node: Node, config: str = f"{CONFIG.environment}|{CONFIG.file}|{MAC}") -> None:
    """The store that azvnet of format 1 left: .5 held, .6 cooling, .7 in quarantine, .8 not listed once, .9
    free, .10 adopted from the kernel.
    """
    node.run_dir.mkdir()
    with closing(sqlite3.connect(node.run_dir / "azvnet.db", isolation_level=None)) as store:
        store.execute("PRAGMA page_size = 4096")
        store.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        for statement in VERSION_1:
            store.execute(statement)
        store.execute("PRAGMA user_version = 1")
        store.execute("INSERT INTO node VALUES (1, 'generation-1', 'boot-1', 1)")
        now = node.clock.now
        store.execute(
            "UPDATE source SET name = 'imds', applied = 'x', config = ?, attempt_at = ?, attempt_wall = ?,"
            " success_at = ?, success_wall = ?, listed = 5",
            (config, now, node.wall.now, now, node.wall.now),
        )
        for number in (5, 6, 7, 8, 9):
            row(store, number, source="imds", nic_mac=MAC, listed=1)
        row(store, 10, source="", nic_mac="", listed=0, address="10.0.0.10/32")
        hold(store, 5, "pod-1", "web", confirmed=1)
        hold(store, 10, "pod-2", "db", confirmed=1)
        store.execute("UPDATE address SET released_at = ? WHERE ip = ?", (now - 10, ips(6)[0].packed))
        store.execute(
            "UPDATE address SET quarantined_until = ?, quarantine_reason = 'seen' WHERE ip = ?",
            (now + 60, ips(7)[0].packed),
        )
        store.execute("UPDATE address SET listed = 0, misses = 1 WHERE ip = ?", (ips(8)[0].packed,))
        store.execute("INSERT INTO counter VALUES ('exhausted', 7)")
        store.execute("PRAGMA journal_mode = WAL")


def row(store: sqlite3.Connection, number: int, **columns: Any) -> None:
    ip = ips(number)[0]
    values = {"ip": ip.packed, "family": 4, "address": f"{ip}/16", "gateway": "10.0.0.1", **columns}
    names, marks = ", ".join(values), ", ".join("?" * len(values))
    store.execute(f"INSERT INTO address ({names}) VALUES ({marks})", tuple(values.values()))


def hold(store: sqlite3.Connection, number: int, container: str, pod: str, *, confirmed: int) -> None:
    store.execute(
        "UPDATE address SET container_id = ?, ifname = 'eth0', network = 'azure', holder = 'endpoint',"
        " pod_namespace = 'default', pod_name = ?, pod_uid = '', netns = '', netns_id = '', host_ifname = '',"
        " call_id = 'c', created_wall = 1.0, confirmed = ? WHERE ip = ?",
        (container, pod, confirmed, ips(number)[0].packed),
    )


class TestOlder:
    def test_every_reservation_and_every_history_is_kept(self, node: Node) -> None:
        of_version_1(node)
        ipam = node.process()
        assert not ipam.needs_adoption()
        assert [(each.attachment, each.ip, each.confirmed) for each in ipam.reservations()] == [
            (P1, ips(5)[0], True),
            (P2, ips(10)[0], True),
        ]
        states = {str(each.address): (each.state.value, each.cooling_left) for each in ipam.addresses(30)}
        assert states == {
            "10.0.0.5/16": ("assigned", 0),
            "10.0.0.6/16": ("cooling", 20),
            "10.0.0.7/16": ("quarantined", 0),
            "10.0.0.8/16": ("quarantined", 0),
            "10.0.0.9/16": ("free", 0),
            "10.0.0.10/32": ("assigned", 0),
        }
        assert ipam.overview().counters["exhausted ipv4"] == 7
        assert reserve(ipam, P3, owner(), asking(nic_mac=MAC)).ip == ips(9)[0]
        assert (release(ipam, P1), held(ipam, P1)) != (None, None)

    def test_its_source_goes_on_where_it_was(self, node: Node) -> None:
        of_version_1(node)
        state = node.process().source_state(CONFIG)
        assert (state.source, state.listed, state.success_age) == ("imds", 5, 0)
        node.says = listing_of(*ips(5, 6, 7, 9, 10))
        ipam = node.process()
        refresh(ipam, force=False)
        assert counts(ipam) == PoolCounts(free=1, assigned=2, cooling=1, quarantined=1)
        (adopted,) = (each for each in ipam.reservations() if each.attachment == P2)
        assert (str(adopted.address), adopted.source) == ("10.0.0.10/16", "imds")

    @pytest.mark.parametrize(
        ("config", "key"),
        [
            ("imds||*", "imds"),
            ("file|/etc/odd|name.json|*", "file:/etc/odd|name.json"),
            (f"auto|/x.json|{MAC},00:0d:3a:00:00:02", "auto:/x.json"),
        ],
    )
    def test_the_source_is_known_by_its_key(self, node: Node, config: str, key: str) -> None:
        of_version_1(node, config)
        environment, _, file = key.partition(":")
        state = node.process().source_state(SourceConfig(environment, file))
        assert state.config.key == key
        assert state.listed == 5

    def test_the_names_in_a_store_of_format_2_are_kept(self, node: Node) -> None:
        of_version_1(node)
        with closing(sqlite3.connect(node.run_dir / "azvnet.db", isolation_level=None)) as store:
            store.execute(
                "CREATE TABLE ip_configuration (source TEXT NOT NULL, ip BLOB NOT NULL, name TEXT NOT NULL,"
                " PRIMARY KEY (source, ip)) STRICT, WITHOUT ROWID"
            )
            store.execute("INSERT INTO ip_configuration VALUES ('imds', ?, 'five')", (ips(5)[0].packed,))
            store.execute("PRAGMA user_version = 2")
        ipam = node.process()
        assert ipam.configuration_of(ips(5)[0]) == "five"
        assert [each.attachment for each in ipam.reservations()] == [P1, P2]

    def test_a_store_of_format_3_knows_what_leaves_the_nic(self, node: Node) -> None:
        ipam = node.ready(5, 6)
        confirm(ipam, reserve(ipam, P1, owner(), ANY))
        ipam.close()
        with closing(sqlite3.connect(node.run_dir / "azvnet.db", isolation_level=None)) as store:
            store.execute("DROP INDEX leaving")
            store.execute("ALTER TABLE address DROP COLUMN leaving_since")
            store.execute("PRAGMA user_version = 3")
        ipam = node.process()
        assert [each.attachment for each in ipam.reservations()] == [P1]
        assert ipam.mark_leaving([ips(6)], 0.0) == (ips(6),)
        assert ipam.leaving() == frozenset(ips(6))

    def test_looking_at_it_changes_nothing(self, node: Node) -> None:
        of_version_1(node)
        before = (node.run_dir / "azvnet.db").read_bytes()
        look = Ipam(
            node.run_dir,
            boot_id_file=node.boot_id_file,
            clock=node.clock,
            wall_clock=node.wall,
            read_only=True,
        )
        assert counts(look) == PoolCounts(free=1, assigned=2, cooling=1, quarantined=2)
        assert (node.run_dir / "azvnet.db").read_bytes() == before

    def test_after_a_restart_of_the_node_nobody_holds_anything(self, node: Node) -> None:
        of_version_1(node)
        node.start_anew("boot-2")
        ipam = node.process()
        assert ipam.needs_adoption()
        assert ipam.reservations() == ()
        assert len(ipam.addresses()) == 5


class TestNewer:
    def newer(self, node: Node) -> None:
        with closing(sqlite3.connect(node.run_dir / "azvnet.db")) as store:
            store.execute("ALTER TABLE address RENAME TO lease")
            store.execute("PRAGMA user_version = 99")

    def test_it_is_moved_aside_and_the_node_goes_on(self, node: Node) -> None:
        ipam = node.ready(5, 6)
        alive = confirm(ipam, reserve(ipam, P1, owner(), ANY))
        ipam.close()
        self.newer(node)
        rolled_back = node.process()
        with pytest.raises(AdoptionNeeded):
            reserve(rolled_back, P2, owner(), ANY)
        (aside,) = node.run_dir.glob("azvnet.db.newer-*")
        with closing(sqlite3.connect(aside)) as kept:
            assert kept.execute("SELECT count(*) FROM lease WHERE container_id IS NOT NULL").fetchone() == (
                1,
            )
        rolled_back.adopt([alive])
        refresh(rolled_back)
        assert reserve(rolled_back, P2, owner(), ANY).ip == ips(6)[0]
        assert held(rolled_back, P1) is not None

    def test_a_process_that_has_it_open_notices(self, node: Node) -> None:
        """The other version changes the format under an agent that runs."""
        ipam = node.ready(5, 6)
        alive = confirm(ipam, reserve(ipam, P1, owner(), ANY))
        self.newer(node)
        assert ipam.needs_adoption()
        ipam.adopt([alive])
        refresh(ipam)
        assert reserve(ipam, P2, owner(), ANY).ip == ips(6)[0]

    def test_an_add_under_way_meanwhile_never_shares_its_address(self, node: Node) -> None:
        """The later version's reservation is in no kernel yet when the earlier one begins anew."""
        made: Reservation = reserve(node.ready(5), P1, owner(), ANY)
        self.newer(node)
        rolled_back = node.process()
        rolled_back.adopt(())
        refresh(rolled_back)
        other = reserve(rolled_back, P2, owner(), ANY)
        assert other.ip == made.ip
        with pytest.raises(ReservationLost):
            confirm(node.process(), made)

    def test_looking_at_it_says_so_and_leaves_it(self, node: Node) -> None:
        node.ready(5).close()
        self.newer(node)
        look = Ipam(node.run_dir, boot_id_file=node.boot_id_file, read_only=True)
        with pytest.raises(StoreUnavailable, match=r"newer azvnet \(store version 99\)"):
            look.overview()
        assert not list(node.run_dir.glob("azvnet.db.newer-*"))


class TestAnotherMachine:
    ONE, TWO = "0123456789abcdef" * 2, "fedcba9876543210" * 2

    def process(self, node: Node, machine_id: str | None) -> Ipam:
        path = node.directory / "machine-id"
        path.unlink(missing_ok=True)
        if machine_id is not None:
            path.write_text(machine_id + "\n")
        return Ipam(
            node.run_dir,
            boot_id_file=node.boot_id_file,
            machine_id_file=path,
            clock=node.clock,
            wall_clock=node.wall,
            reader=node.read,
        )

    def ready(self, node: Node, machine_id: str | None) -> Ipam:
        ipam = self.process(node, machine_id)
        ipam.adopt(())
        refresh(ipam)
        reserve(ipam, P1, owner(), ANY)
        return ipam

    def test_its_store_tells_nothing_of_this_one(self, node: Node) -> None:
        """The boot id is the same where nodes share a kernel, and in a copy of a machine's memory."""
        self.ready(node, self.ONE)
        here = self.process(node, self.TWO)
        assert here.reservations() == ()
        assert here.needs_adoption()
        assert here.source_state(CONFIG).success_age is None

    @pytest.mark.parametrize("unknown", [None, "", "uninitialized"])
    def test_where_a_process_does_not_see_the_id_it_contradicts_nothing(
        self, node: Node, unknown: str | None
    ) -> None:
        """An agent in an image without systemd beside calls on the host."""
        self.ready(node, self.ONE)
        assert len(self.process(node, unknown).reservations()) == 1
        assert len(self.process(node, self.ONE).reservations()) == 1

    def test_a_store_made_without_the_id_learns_it(self, node: Node) -> None:
        self.ready(node, None)
        assert len(self.process(node, self.ONE).reservations()) == 1
        self.process(node, self.ONE).note_present([])
        assert self.process(node, self.TWO).reservations() == ()
