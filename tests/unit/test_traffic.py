"""What is decided about pods' packets, and the file that it is in."""

from __future__ import annotations

import threading
from ipaddress import IPv4Network
from pathlib import Path

from cni_plugin.host import traffic
from cni_plugin.host.traffic import Traffic

FIRST, SECOND = (Traffic((IPv4Network(each),)) for each in ("10.0.0.0/8", "172.16.0.0/12"))


def test_threads_that_write_at_the_same_time_do_not_disturb_each_other(tmp_path: Path) -> None:
    """An agent's first ADDs, and its own work, find no decision all at once."""
    failures: list[BaseException] = []

    def write(mine: Traffic, network: str) -> None:
        try:
            for number in range(200):
                traffic.write_decision(mine, tmp_path)
                traffic.note_network(network, traffic.PodNetwork(bool(number % 2)), tmp_path)
                assert traffic.read_decision(tmp_path) in (FIRST, SECOND)
        except (OSError, AssertionError) as error:
            failures.append(error)

    threads = [
        threading.Thread(target=write, args=(each, f"n{number}"))
        for number in range(4)
        for each in (FIRST, SECOND)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sorted(each.name for each in tmp_path.iterdir()) == ["networks.json", "traffic.json"]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    for decided in (FIRST, Traffic((), link_local=False, random_fully=True, imds=True, wireserver=True)):
        traffic.write_decision(decided, tmp_path)
        assert traffic.read_decision(tmp_path) == decided


def test_a_damaged_file_is_as_if_nothing_was_decided(tmp_path: Path) -> None:
    for text in ("", "{", "[]", "{}", '{"non_masquerade": 7}', '{"non_masquerade": ["x"]}'):
        (tmp_path / traffic.DECISION).write_text(text)
        assert traffic.read_decision(tmp_path) is None
