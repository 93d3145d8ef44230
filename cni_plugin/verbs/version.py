"""VERSION, answered with almost nothing loaded (CNI spec 1.1.0, "VERSION").

``json`` would double the time of this verb: its C scanner alone reads the configuration just as well. What
is not an ordinary VERSION call is left to ``contract``, which reports errors.
"""

from cni_plugin import stdio

SPOKEN = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
"""The same as ``versions.SUPPORTED`` (a test compares them): importing that would load the error classes."""
BLANKS = " \t\r\n"


class _Decoder:
    """The attributes that the C scanner reads (those of json.decoder.JSONDecoder)."""

    strict = True
    object_hook = None
    parse_float = float
    parse_int = int

    @staticmethod
    def object_pairs_hook(pairs: list[tuple[str, object]]) -> dict[str, object]:
        """An object; raises ValueError for one that names a key twice, which ``contract`` refuses."""
        document = dict(pairs)
        if len(document) != len(pairs):
            raise ValueError(pairs)
        return document

    @staticmethod
    def parse_constant(text: str) -> float:
        """Raises ValueError: NaN and Infinity are not JSON (RFC 8259, section 6)."""
        raise ValueError(text)


def answer() -> int | None:
    """Answer on stdout and return 0. None for a call that is not ordinary: nothing was written then,
    and stdin can be read again.
    """
    try:
        stdin = stdio.read_stdin()
        asked = _asked_version(stdin)
    except OSError:
        return None
    if asked is None:
        stdio.give_back(stdin)
        return None
    spoken = ",".join(f'"{version}"' for version in SPOKEN)
    reply = f'{{"cniVersion":"{asked}","supportedVersions":[{spoken}]}}\n'.encode()
    return 0 if stdio.write_all(1, reply) else 1


def _asked_version(stdin: bytes) -> str | None:
    """``cniVersion`` of the configuration, or the current version if stdin is empty."""
    try:
        text = stdin.decode().strip(BLANKS)
        if not text:
            return SPOKEN[-1]
        from _json import make_scanner

        document, end = make_scanner(_Decoder())(text, 0)  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001 - whatever it is, contract reports it
        return None
    version = (
        document.get("cniVersion", SPOKEN[-1]) if isinstance(document, dict) and end == len(text) else None
    )
    parts = version.split(".") if isinstance(version, str) and version.isascii() else ()
    return version if len(parts) == 3 and all(part.isdigit() for part in parts) else None
