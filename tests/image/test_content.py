"""What is in the image: the bundle as its manifest says, what that needs, and nothing to break in with."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import tarfile
from pathlib import Path

from tests.image.conftest import ROOT

BUNDLE = "usr/lib/azvnet"
TOP = {"dev", "etc", "host", "lib", "lib64", "proc", "run", "sys", "tmp", "usr", "var"}
ENTER = 'mount --bind "$1" "$1"; mount --bind /proc "$1/proc"; cd "$1"; shift; exec chroot . "$@"'
READ_ONLY = (
    'mount --bind "$1" "$1"; mount --bind /proc "$1/proc"; mount -o remount,ro,bind "$1"; cd "$1"; shift; '
)
LIBRARIES = {"libc.so.6", "libdl.so.2", "libm.so.6", "libpthread.so.0", "librt.so.1"}


def inside(rootfs: Path, *command: str, read_only: bool = True, **environment: str) -> str:
    """What a program of the image prints, in the image alone."""
    script = READ_ONLY + 'exec chroot . "$@"' if read_only else ENTER
    done = subprocess.run(
        ["unshare", "--mount", "--net", "sh", "-ec", script, "sh", rootfs, *command],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **environment},
        input='{"cniVersion": "1.1.0"}',
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout


def test_there_is_what_is_needed_and_nothing_else(members: dict[str, tarfile.TarInfo]) -> None:
    assert {name.split("/")[0] for name in members} == TOP
    programs = {name for name, member in members.items() if member.isfile() and member.mode & 0o111}
    loader = {name for name in programs if "/ld-linux-" in name}
    assert len(loader) == 1
    libraries = {name for name in programs if re.fullmatch(r"usr/lib/[a-z0-9_]+-linux-gnu/lib[^/]+", name)}
    assert {Path(name).name for name in libraries} == LIBRARIES
    own = {f"{BUNDLE}/{name}" for name in ("azvnet", "azvnet-probe", "azvnet-python")}
    in_bundle = {
        name for name in programs - own if name.startswith(f"{BUNDLE}/azvnet-lib/") and ".so" in name
    }
    assert programs == loader | libraries | own | in_bundle
    links = {name: member.linkname for name, member in members.items() if member.issym()}
    assert links["usr/bin/azvnet"] == "../lib/azvnet/azvnet"
    assert {name for name in members if name.startswith("usr/bin/")} == {
        "usr/bin/azvnet",
        "usr/bin/azvnet-probe",
    }


def test_a_folder_of_namespaces_is_there_only_when_the_hosts_is_mounted(
    members: dict[str, tarfile.TarInfo],
) -> None:
    """An empty one would say that every namespace of the node is gone, and their addresses free."""
    assert not [name for name in members if name.startswith("run/netns")]


def test_nothing_has_a_bit_or_an_owner_that_it_should_not_have(members: dict[str, tarfile.TarInfo]) -> None:
    for name, member in members.items():
        assert not member.mode & (stat.S_ISUID | stat.S_ISGID), name
        assert member.isfile() or member.isdir() or member.issym(), name
        if name != "tmp" and not member.issym():
            assert not member.mode & 0o022, name
        assert "pax_headers" not in name
    assert members["run/azvnet"].mode == 0o700


def test_folders_come_before_what_is_in_them(members: dict[str, tarfile.TarInfo]) -> None:
    seen = {"."}
    for name in members:
        assert str(Path(name).parent) in seen, name
        seen.add(name)


def test_the_bundle_is_as_its_manifest_says(rootfs: Path) -> None:
    subprocess.run(
        ["/usr/bin/python3", ROOT / "packaging/manifest.py", "check", rootfs / BUNDLE], check=True, timeout=60
    )


def test_every_library_that_anything_asks_for_is_there(rootfs: Path) -> None:
    elf = [
        path
        for path in rootfs.rglob("*")
        if path.is_file() and not path.is_symlink() and path.read_bytes()[:4] == b"\x7fELF"
    ]
    asked = subprocess.run(["readelf", "-dW", *elf], capture_output=True, text=True, check=True).stdout
    names = set(re.findall(r"\(NEEDED\).*\[(.+)\]", asked))
    assert names <= {path.name for path in elf}
    assert "libc.so.6" in names


def test_it_runs_with_a_root_that_can_not_be_written_and_without_anything_of_the_host(rootfs: Path) -> None:
    assert re.fullmatch(r"azvnet \d\S+\n", inside(rootfs, "/usr/bin/azvnet", "--version"))
    answer = json.loads(inside(rootfs, "/usr/bin/azvnet", CNI_COMMAND="VERSION"))
    assert "1.1.0" in answer["supportedVersions"]
    assert "COMMAND" in inside(rootfs, "/usr/bin/azvnet", "--help")


def test_it_installs_itself_into_a_node_that_is_mounted_in_it(rootfs: Path, tmp_path: Path) -> None:
    host = tmp_path / "host"
    folders = ("opt/azvnet", "opt/cni/bin", "usr")
    for folder in folders:
        (host / folder).mkdir(parents=True)
        (rootfs / "host" / folder).mkdir(parents=True, exist_ok=True)
    mounts = "".join(f"mount --bind '{host}/{each}' host/{each}; " for each in folders)
    install = "chroot . /usr/bin/azvnet install --root=/host --no-conflist"
    script = f"{READ_ONLY} {mounts} mount --rbind /usr host/usr; {install}"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", script, "sh", rootfs],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "is current" in done.stdout
    assert "note" not in done.stdout, "the C library of this machine was found and is new enough"
    assert (host / "opt/cni/bin/azvnet").readlink() == Path("/opt/azvnet/current/azvnet")
    installed = host / "opt/azvnet/current/azvnet-python"
    assert installed.resolve().read_bytes() == (rootfs / BUNDLE / "azvnet-python").read_bytes()
    subprocess.run(
        ["/usr/bin/python3", ROOT / "packaging/manifest.py", "check", installed.parent.resolve()],
        check=True,
        timeout=60,
    )


def test_scanners_find_the_packages_whose_files_these_are(rootfs: Path) -> None:
    folder = rootfs / "var/lib/dpkg/status.d"
    for stanza in folder.iterdir():
        name = re.search(r"^Package: (\S+)$", stanza.read_text(), re.MULTILINE)
        assert name is not None
        assert name[1] == stanza.name
        shown = subprocess.run(
            ["dpkg-query", "--show", "--showformat=${Version}", stanza.name],
            capture_output=True,
            text=True,
            check=True,
        )
        assert f"\nVersion: {shown.stdout}\n" in stanza.read_text()
    assert {"libc6", "zlib1g"} <= {each.name for each in folder.iterdir()}
    assert (rootfs / "etc/os-release").read_bytes() == Path("/etc/os-release").read_bytes()
    assert (rootfs / "usr/share/doc/azvnet/LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
