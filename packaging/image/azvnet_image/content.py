"""What is in the image, path by path.

Owns the layout: the bundle in ``/usr/lib/azvnet``, the libraries where the distribution has them, the
directories that a pod mounts something over, and who the program runs as. There are two images, the nodes'
and the operator's. No shell, no package manager. It must not know formats.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from azvnet_image import bill, debian, libraries
from azvnet_image.archive import Entry
from azvnet_image.bill import Shares
from azvnet_image.origins import Origins, origins, static_libraries

BUNDLE = "usr/lib/azvnet"
ROOT = Path(__file__).resolve().parents[3]
SBOM = "usr/share/azvnet/sbom.cdx.json"
LINKS = {
    "lib": "usr/lib",
    "lib64": "usr/lib64",
    "var/run": "../run",
    "usr/bin/azvnet": "../lib/azvnet/azvnet",
}
PROBE = "azvnet-probe"
ROOT_USER = b"root:x:0:0:root:/:/sbin/nologin\n"
EVERYWHERE = {"dev": 0o755, "etc/azvnet": 0o755, "proc": 0o555, "sys": 0o555, "tmp": 0o1777}


@dataclass(frozen=True, slots=True)
class Layout:
    """What one image has beside its bundle and the libraries."""

    title: str
    user: str
    """``uid:gid`` of the program."""
    directories: Mapping[str, int]
    """With their modes: what the manifest mounts something over, and what every program expects."""
    files: Mapping[str, bytes]


# Names of the node's hosts file before DNS, as everywhere.
_SWITCH = {"etc/nsswitch.conf": b"passwd: files\ngroup: files\nhosts: files dns\n"}
NODE = Layout(
    "azvnet",
    "0:0",
    # Not /run/netns: to an agent without that mount an empty one would say that every namespace is gone.
    {
        **EVERYWHERE,
        "etc/cni/net.d": 0o755,
        "host": 0o755,
        "run/azvnet": 0o700,
        "var/log/azvnet": 0o750,
    },
    {"etc/passwd": ROOT_USER, "etc/group": b"root:x:0:\n", **_SWITCH},
)
OPERATOR = Layout(
    "azvnet-operator",
    "65532:65532",
    {**EVERYWHERE, "run": 0o755},
    {
        "etc/passwd": ROOT_USER + b"azvnet:x:65532:65532:azvnet:/:/sbin/nologin\n",
        "etc/group": b"root:x:0:\nazvnet:x:65532:\n",
        **_SWITCH,
    },
)


@dataclass(frozen=True, slots=True)
class Content:
    """Everything that goes into the image, and the bill of it."""

    architecture: str
    entries: tuple[Entry, ...]
    sbom: bytes
    base: tuple[debian.Package, ...]
    """Debian packages in it, or linked into what is in it."""


def content(bundle: Path, layout: Layout, name: str, version: str, created: str) -> Content:
    """Put together what a bundle needs.

    Raises:
        ImageError: a library is missing here, or it is not known where a file comes from.
    """
    program = bundle / "azvnet-python"
    architecture = libraries.architecture(program)
    own = list(_bundle(bundle))
    base = dict(_libraries(bundle, program, architecture))
    made_by = origins(bundle)
    packages = debian.owners(base.values())
    static = sorted(static_libraries().values()) if (bundle / PROBE).exists() else []
    every = sorted({*made_by.packages, *packages.values()})
    papers = list(_papers(every))
    project = [Entry(path, 0o644, text) for path, text in layout.files.items()]
    project.append(Entry("usr/share/doc/azvnet/LICENSE", 0o644, (ROOT / "LICENSE").read_bytes()))
    release = Path("/etc/os-release").read_bytes()
    project.append(Entry("etc/os-release", 0o644, release))
    files = {entry.path: entry for entry in (*own, *papers, *project, *_base_files(base))}
    sbom = bill.write(
        bill.Subject(name, version, created), files, shares(made_by, base, packages, files, static)
    )
    files[SBOM] = Entry(SBOM, 0o644, sbom)
    links = [Entry(path, 0o777, target=target) for path, target in LINKS.items()]
    if (bundle / PROBE).exists():
        links.append(Entry(f"usr/bin/{PROBE}", 0o777, target=f"../lib/azvnet/{PROBE}"))
    links.append(_loader(program))
    directories = [Entry(path, mode) for path, mode in layout.directories.items()]
    entries = [*files.values(), *links, *directories]
    return Content(
        architecture,
        (*entries, *_parents(entries)),
        sbom,
        tuple(sorted({*every, *static})),
    )


def shares(
    made_by: Origins,
    base: dict[str, Path],
    packages: dict[Path, debian.Package],
    files: dict[str, Entry],
    static: list[debian.Package],
) -> Shares:
    """Which paths of the image are whose."""
    of_packages: dict[debian.Package, list[str]] = {each: [] for each in static}
    for package, names in made_by.packages.items():
        of_packages.setdefault(package, []).extend(f"{BUNDLE}/{name}" for name in names)
    for path, file in base.items():
        of_packages.setdefault(packages[file], []).append(path)
    for package, paths in of_packages.items():
        paths.extend(path for path in (_licences_of(package), _status_of(package)) if path in files)
    return Shares(
        {name: [f"{BUNDLE}/{each}" for each in names] for name, names in made_by.distributions.items()},
        of_packages,
        static,
    )


def _licences_of(package: debian.Package) -> str:
    return f"usr/share/doc/{package.name}/copyright"


def _status_of(package: debian.Package) -> str:
    return f"var/lib/dpkg/status.d/{package.name}"


def _bundle(bundle: Path) -> Iterator[Entry]:
    for path in sorted(bundle.rglob("*")):
        name = f"{BUNDLE}/{path.relative_to(bundle)}"
        if path.is_symlink():
            yield Entry(name, 0o777, target=str(path.readlink()))
        elif path.is_dir():
            yield Entry(name, 0o755)
        else:
            yield Entry(name, path.stat().st_mode & 0o7777, path.read_bytes())


def _libraries(bundle: Path, program: Path, architecture: str) -> Iterator[tuple[str, Path]]:
    """Paths in the image, with the files of this machine."""
    triplet = libraries.TRIPLETS[architecture]
    directory = Path("/usr/lib") / triplet
    for name, path in sorted(libraries.needed(bundle, [directory]).items()):
        yield f"usr/lib/{triplet}/{name}", path
    loader = libraries.interpreter(program)
    yield f"usr/lib/{triplet}/{loader.name}", directory / loader.name


def _loader(program: Path) -> Entry:
    """Where a program asks for the dynamic loader, which is not where the distribution has it."""
    loader = libraries.interpreter(program)
    triplet = libraries.TRIPLETS[libraries.architecture(program)]
    directory = loader.parent.relative_to("/")
    if directory == Path("lib"):
        return Entry(f"usr/lib/{loader.name}", 0o777, target=f"{triplet}/{loader.name}")
    return Entry(f"usr/{directory}/{loader.name}", 0o777, target=f"../lib/{triplet}/{loader.name}")


def _base_files(base: dict[str, Path]) -> Iterator[Entry]:
    for name, path in base.items():
        yield Entry(name, 0o755, path.read_bytes())


def _papers(packages: Iterable[debian.Package]) -> Iterator[Entry]:
    """Licences, and what scanners of images read: which packages' files these are."""
    for package in packages:
        if package.copyright is not None:
            yield Entry(_licences_of(package), 0o644, package.copyright)
        yield Entry(_status_of(package), 0o644, package.stanza.encode())


def _parents(entries: Iterable[Entry]) -> list[Entry]:
    known = {entry.path for entry in entries}
    missing = {str(up) for path in known for up in Path(path).parents if str(up) != "."} - known
    return [Entry(path, 0o755) for path in missing]
