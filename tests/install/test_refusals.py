"""What can't be installed is refused with the reason, and the version that was there works as before."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.install.forge import MANIFEST, Forge, number_of, seal
from tests.install.node import COMMAND, Node, run, tree


def in_mounts(script: str, node: Node, command: list[str]) -> subprocess.CompletedProcess[str]:
    """A command line of azvnet in a mount namespace of its own, after ``script``."""
    program = shlex.join([*COMMAND, *command])
    return run(
        ["unshare", "--mount", "--propagation=private", "sh", "-ec", f"{script}\n{program}"], node.root
    )


def bind(folder: Path, options: str) -> str:
    return f"mount --bind {folder} {folder}; mount -o remount,bind,{options} {folder}"


MOUNTS: dict[str, tuple[Callable[[Node], str], str]] = {
    "read-only prefix": (lambda node: bind(node.prefix, "ro"), "read-only"),
    "read-only folder of plugins": (
        lambda node: f"rm {node.bin_dir}/azvnet-ipam; {bind(node.bin_dir, 'ro')}",
        "read-only",
    ),
    "read-only folder of networks": (
        lambda node: f"rm {node.conflist}; {bind(node.conf_dir, 'ro')}",
        "read-only",
    ),
    "noexec prefix": (lambda node: bind(node.prefix, "noexec"), "noexec"),
    "full prefix": (
        lambda node: f"mount -t tmpfs -o size=600k none {node.prefix}/versions",
        "No space left",
    ),
}


@pytest.mark.parametrize("case", MOUNTS)
def test_a_place_that_can_not_take_it_is_refused(case: str, forge: Forge, node: Node) -> None:
    script, reason = MOUNTS[case]
    first = forge.bundle()
    node.install(first)
    if case == "full prefix":
        (node.prefix / "current").unlink()

    done = in_mounts(script(node), node, node.argv("install", f"--bundle={forge.bundle()}"))

    assert done.returncode == 1
    assert reason in done.stderr
    assert len(done.stderr.splitlines()) == 1
    if case != "full prefix":
        assert node.number() == number_of(first)
    assert not node.left_overs()


def test_a_read_only_folder_of_plugins_that_has_the_right_links_needs_no_writing(
    forge: Forge, node: Node
) -> None:
    node.install(forge.bundle())
    second = forge.bundle()

    done = in_mounts(bind(node.bin_dir, "ro"), node, node.argv("install", f"--bundle={second}"))

    assert done.returncode == 0, done.stderr
    assert node.number() == number_of(second)


NOT_ROOT = (
    *("setpriv", "--reuid=65534", "--clear-groups"),
    # The checkout may stand in a directory that only its owner may enter, as a home is.
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
)


def test_only_root_installs(forge: Forge, node: Node) -> None:
    for command in (node.argv("install", f"--bundle={forge.bundle()}"), node.argv("uninstall")):
        done = run([*NOT_ROOT, *COMMAND, *command], node.root)
        assert done.returncode == 1
        assert "only root" in done.stderr


def lose_a_file(bundle: Path) -> None:
    (bundle / "azvnet-lib" / "again").unlink()


def lose_a_program(bundle: Path) -> None:
    (bundle / "azvnet-python").unlink()


def lose_the_manifest(bundle: Path) -> None:
    (bundle / MANIFEST).unlink()


def cut_the_manifest(bundle: Path) -> None:
    lines = (bundle / MANIFEST).read_text().splitlines(keepends=True)
    (bundle / MANIFEST).write_text("".join(line for line in lines if "azvnet-python" not in line))


def garble_the_manifest(bundle: Path) -> None:
    (bundle / MANIFEST).write_bytes(b"\0\xff")


def lead_out(bundle: Path) -> None:
    with (bundle / MANIFEST).open("a") as manifest:
        manifest.write("l - ../../../../etc azvnet-lib/out\n")


def write_outside(bundle: Path) -> None:
    with (bundle / MANIFEST).open("a") as manifest:
        manifest.write(f"f 0644 {'0' * 64} ../outside\n")


def append(line: str) -> Callable[[Path], None]:
    def harm(bundle: Path) -> None:
        with (bundle / MANIFEST).open("ab") as manifest:
            manifest.write(line.encode() + b"\n")

    return harm


EMPTY = f"f 0644 {'0' * 64}"
ESCAPES = {
    "an absolute link": ("l - /etc azvnet-lib/out", "a link that leads out"),
    "an absolute link with two slashes": ("l - //etc azvnet-lib/out", "a link that leads out"),
    "an absolute link, then a file behind it": (
        f"l - /tmp azvnet-lib/out\n{EMPTY} azvnet-lib/out/x",
        "malformed",
    ),
    "an absolute path": (f"{EMPTY} /tmp/azvnet-outside", "malformed"),
    "an absolute path with two slashes": (f"{EMPTY} //tmp/azvnet-outside", "malformed"),
    "a path that climbs": (f"{EMPTY} azvnet-lib/../../outside", "malformed"),
    "a directory that climbs": ("d 0755 - ..", "malformed"),
    "a link to the bundle's parent": ("l - .. azvnet-lib/../out", "malformed"),
    "a link that climbs behind another": (
        "l - deep/empty azvnet-lib/short\nl - short/../../../../etc azvnet-lib/out",
        "a link that leads out",
    ),
    "a link that climbs one too far": ("l - ../../etc azvnet-lib/out", "a link that leads out"),
    "a link to nothing of the bundle": ("l - nothing azvnet-lib/out", "a link that leads out"),
    "a file below a link": (f"l - deep azvnet-lib/out\n{EMPTY} azvnet-lib/out/x", "malformed"),
    "a path twice": ("l - answer azvnet-lib/again", "malformed"),
    "a NUL byte": (f"{EMPTY} azvnet-lib/a\0b", "malformed"),
    "an escape sequence": (f"{EMPTY} azvnet-lib/\x1b[2J", "malformed"),
}


@pytest.mark.parametrize("case", ESCAPES)
def test_nothing_of_a_bundle_is_outside_of_it(case: str, forge: Forge, node: Node) -> None:
    """A manifest may come from anywhere: what is not inside is refused before anything is written."""
    line, reason = ESCAPES[case]
    bundle = forge.bundle()
    append(line)(bundle)
    before = tree(node.root)

    done = node.run("install", f"--bundle={bundle}")

    assert done.returncode == 1
    assert reason in done.stderr
    assert done.stderr.removesuffix("\n").isprintable()
    assert tree(node.root) == before
    assert not Path("/tmp/azvnet-outside").exists()


def change_a_byte(bundle: Path) -> None:
    path = bundle / "azvnet-lib" / "deep" / "file"
    path.write_text("y" + path.read_text()[1:])


def be_of_another_machine(bundle: Path) -> None:
    for name in ("azvnet", "azvnet-python"):
        content = bytearray((bundle / name).read_bytes())
        content[18:20] = (183 if os.uname().machine == "x86_64" else 62).to_bytes(2, "little")
        (bundle / name).unlink()
        (bundle / name).write_bytes(content)
    seal(bundle)


def answer_nonsense(bundle: Path) -> None:
    for name in ("answer", "again"):
        (bundle / "azvnet-lib" / name).write_text("{}")
    seal(bundle)


def crash(bundle: Path) -> None:
    (bundle / "azvnet-lib" / "again").unlink()
    seal(bundle)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lose_a_file, "is incomplete: azvnet-lib/again"),
        (lose_a_program, "is incomplete: azvnet-python"),
        (lose_the_manifest, "is not a bundle"),
        (cut_the_manifest, "does not list azvnet-python"),
        (garble_the_manifest, "a malformed line"),
        (lead_out, "a link that leads out of it"),
        (write_outside, "a malformed line"),
        (change_a_byte, "azvnet-lib/deep/file: has different content"),
        (be_of_another_machine, "is for "),
        (answer_nonsense, "does not answer VERSION"),
        (crash, "does not answer VERSION: exit code 3"),
    ],
)
def test_a_bundle_that_is_not_right_is_never_switched_to(
    harm: Callable[[Path], None], reason: str, forge: Forge, node: Node
) -> None:
    first, second = forge.bundle(), forge.bundle()
    node.install(first)
    harm(second)
    before = tree(node.root)

    done = node.run("install", f"--bundle={second}")

    assert done.returncode == 1
    assert reason in done.stderr
    assert tree(node.root) == before
    assert node.number() == number_of(first)


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_name_that_is_somebody_elses_is_not_taken(kind: str, forge: Forge, node: Node) -> None:
    theirs = node.bin_dir / "azvnet"
    theirs.symlink_to("portmap") if kind == "link" else theirs.write_text("theirs")
    before = tree(node.bin_dir), tree(node.conf_dir)

    done = node.run("install", f"--bundle={forge.bundle()}")

    assert done.returncode == 1
    assert "is there already" in done.stderr
    assert (tree(node.bin_dir), tree(node.conf_dir)) == before


def test_links_made_by_hand_into_the_prefix_are_taken_over(forge: Forge, node: Node) -> None:
    node.prefix.mkdir()
    for name in ("azvnet", "azvnet-ipam"):
        (node.bin_dir / name).symlink_to(f"../../azvnet/{name}")
    bundle = forge.bundle()

    node.install(bundle)

    assert node.number() == number_of(bundle)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--prefix=opt/azvnet"], "not an absolute path"),
        (["--root=/nonexistent"], "is not a directory"),
        (["--conflist=/nonexistent"], "cannot read the conflist"),
        (["--conflist=/dev/null", "--no-conflist"], "contradict"),
        (["--rollback"], "no other intact version"),
    ],
)
def test_arguments_that_can_not_be_are_refused(
    arguments: list[str], reason: str, forge: Forge, node: Node
) -> None:
    bundle = forge.bundle()
    node.install(bundle)

    done = node.run("install", f"--bundle={bundle}", *arguments)

    assert done.returncode == 1
    assert reason in done.stderr
    assert "Traceback" not in done.stderr


def test_from_its_sources_it_asks_for_the_bundle(node: Node) -> None:
    done = node.run("install")

    assert done.returncode == 1
    assert "--bundle" in done.stderr
