"""The conflist is whole, in one step, only where it differs, and never taken away."""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cni_plugin.conflist import ConflistFile, NotInPlace

AZVNET = {"type": "azvnet", "ipam": {"type": "azvnet-ipam", "environment": "file", "file": "/a"}}
CONFLIST = {"cniVersion": "1.1.0", "name": "azvnet", "plugins": [AZVNET, {"type": "portmap"}]}


class Installed:
    """A conflist, the folder that the runtime reads."""

    def __init__(self, folder: Path) -> None:
        self.source = folder / "source.conflist"
        self.net_d = folder / "net.d"
        self.net_d.mkdir()
        self.path = self.net_d / "10-azvnet.conflist"
        self.write(CONFLIST)
        self.file = self.another()

    def another(self) -> ConflistFile:
        """As another agent on the same node has it."""
        return ConflistFile(self.source, self.path)

    def write(self, document: object) -> bytes:
        content = json.dumps(document).encode()
        self.source.write_bytes(content)
        return content

    def names(self) -> list[str]:
        return sorted(path.name for path in self.net_d.iterdir())


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    return Installed(tmp_path)


def test_it_is_written_as_it_is_with_the_mode_that_the_runtime_needs(installed: Installed) -> None:
    mask = os.umask(0o077)
    try:
        installed.file.put_in_place(installed.file.read())
    finally:
        os.umask(mask)
    assert installed.path.read_bytes() == installed.source.read_bytes()
    assert stat.S_IMODE(installed.path.stat().st_mode) == 0o644
    assert installed.names() == ["10-azvnet.conflist"]


def test_one_that_is_in_place_is_known_as_such(installed: Installed) -> None:
    content = installed.file.read()
    assert not installed.file.is_in_place(content)
    installed.file.put_in_place(content)
    assert installed.file.is_in_place(content)
    assert installed.another().is_in_place(content)
    installed.write({**CONFLIST, "name": "other"})
    assert not installed.file.is_in_place(installed.file.read())


def test_readers_never_find_half_of_it(installed: Installed) -> None:
    """Two agents write different conflists over and over while a runtime reads."""
    large = [{**CONFLIST, "filler": letter * 100_000} for letter in "ab"]
    wanted = {json.dumps(each).encode() for each in large}
    installed.file.put_in_place(next(iter(wanted)))
    stop = threading.Event()

    def write(content: bytes) -> None:
        own = installed.another()
        while not stop.is_set():
            own.put_in_place(content)

    writers = [threading.Thread(target=write, args=(content,)) for content in wanted]
    for writer in writers:
        writer.start()
    seen = {installed.path.read_bytes() for _ in range(300)}
    stop.set()
    for writer in writers:
        writer.join()
    assert seen <= wanted
    assert installed.names() == ["10-azvnet.conflist"]


def test_what_a_killed_writer_left_is_cleared_but_not_what_another_writes_now(installed: Installed) -> None:
    old, new = (installed.net_d / f".10-azvnet.conflist.{name}.tmp" for name in ("old", "new"))
    for path in (old, new, installed.net_d / "foreign.tmp"):
        path.touch()
    os.utime(old, (0, 0))
    os.utime(installed.net_d / "foreign.tmp", (0, 0))
    installed.file.put_in_place(installed.file.read())
    assert installed.names() == [new.name, "10-azvnet.conflist", "foreign.tmp"]


def test_no_left_over_looks_like_a_configuration(
    installed: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libcni reads .conf, .conflist and .json; what is being written must be none of them."""
    seen: list[list[str]] = []
    real = os.fsync

    def look(fd: int) -> None:
        seen.append(installed.names())
        real(fd)

    monkeypatch.setattr(os, "fsync", look)
    installed.file.put_in_place(installed.file.read())
    (first, *_) = seen
    assert len(first) == 1
    assert Path(first[0]).suffix == ".tmp"
    assert len(seen) == 2, "file and directory are both synced"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda it: it.net_d.rmdir(), "does not exist: is a container runtime installed"),
        (lambda it: (it.net_d.rmdir(), it.net_d.touch()), "Not a directory"),
        (lambda it: it.path.mkdir(), "Is a directory"),
    ],
    ids=["missing", "a-file", "a-directory-in-its-place"],
)
def test_where_it_cannot_be_written_is_said(
    installed: Installed, spoil: Callable[[Installed], object], words: str
) -> None:
    content = installed.file.read()
    spoil(installed)
    with pytest.raises(NotInPlace, match=words):
        installed.file.put_in_place(content)
    if installed.path.is_dir():
        assert installed.names() == ["10-azvnet.conflist"], "the temporary file is gone"


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], "no plugin azvnet"),
        ({"cniVersion": "1.1.0", "name": "n"}, "no plugin azvnet"),
        ({**CONFLIST, "plugins": [{"type": "bridge"}]}, "no plugin azvnet"),
        ({**CONFLIST, "plugins": ["azvnet", 7]}, "no plugin azvnet"),
        ({**CONFLIST, "name": "with space"}, "malformed"),
        ({**CONFLIST, "plugins": [{**AZVNET, "mode": "overlay"}]}, "unsupported value"),
        ({**CONFLIST, "plugins": [{**AZVNET, "mtu": "big"}]}, "mtu"),
        ({**CONFLIST, "plugins": [{**AZVNET, "ipam": {"type": "azvnet"}}]}, "this plugin itself"),
    ],
)
def test_one_that_would_fail_every_pod_is_refused(installed: Installed, document: object, words: str) -> None:
    installed.write(document)
    with pytest.raises(NotInPlace, match=words):
        installed.file.read()
    assert installed.file.netconf == {}


def test_one_that_is_missing_or_half_written_is_said(installed: Installed) -> None:
    installed.source.write_text('{"cniVersion": "1.1.0", "plu')
    with pytest.raises(NotInPlace, match="is not valid JSON"):
        installed.file.read()
    installed.source.unlink()
    with pytest.raises(NotInPlace, match=r"cannot read .*: No such file"):
        installed.file.read()


def test_what_our_plugin_gets_from_it_follows_its_content(installed: Installed) -> None:
    installed.file.read()
    netconf = installed.file.netconf
    assert (netconf["name"], netconf["cniVersion"], netconf["ipam"]) == ("azvnet", "1.1.0", AZVNET["ipam"])
    bridge = {"type": "bridge", "ipam": {"type": "azvnet-ipam", "environment": "imds"}}
    installed.write({**CONFLIST, "plugins": [bridge]})
    installed.file.read()
    assert installed.file.netconf["ipam"] == bridge["ipam"]


def test_others_that_the_runtime_prefers_are_named(installed: Installed) -> None:
    for name in ("05-other.conf", "09-more.json", "10-azure.conflist", "00-old.bak", "20-later.conflist"):
        (installed.net_d / name).touch()
    assert installed.file.sorts_before() == ["05-other.conf", "09-more.json", "10-azure.conflist"]
