"""Running another plugin: the IPAM plugin that ``ipam.type`` names.

Owns finding it through CNI_PATH, running it with the caller's environment and the complete netconf, and
reading its result (CNI spec 1.1.0, "Plugin Delegation"). It must not know our own pool.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from cni_plugin.cni import strict_json
from cni_plugin.cni.call import DELEGATED_BY, VerbCall
from cni_plugin.cni.errors import DecodingFailure, DelegateError, DelegateFailed, InvalidNetconf
from cni_plugin.cni.result import Result, from_json
from ipam.quoting import one_line, quoted
from ipam.subnet import why_not_for_pods

SECONDS = 110
"""Below the two minutes after which a kubelet gives up on a call, with time left to undo."""

OWN_NAMES = ("azvnet", "azvnet-ipam")
"""``azvnet-ipam`` is never executed: its addresses come from our own pool."""
OWN_FILES = (*OWN_NAMES, "azvnet-python")

FROZEN_VARIABLES = ("LD_LIBRARY_PATH_ORIG",)
FROZEN_PREFIXES = ("_MEI", "_PYI", "AZVNET_")
SAID_BYTES = 64 * 1024
"""At most this much of a delegate's stderr is passed on."""

LARGEST_CODE = 0xFFFFFFFF
"""libcni reads an unsigned number; 0 means success (CNI spec, "Error")."""

_prctl = ctypes.CDLL(None).prctl


class DelegatesToItself(InvalidNetconf):
    """``ipam.type`` names this plugin itself: each call would start the next one, without end."""

    def __init__(self, name: str, program: Path | None = None) -> None:
        where = f" ({program})" if program else ""
        super().__init__(
            f"ipam.type {name!r} is azvnet itself{where}",
            "Name another IPAM plugin, or azvnet-ipam for the addresses of this node.",
        )


def request_addresses(verb_call: VerbCall) -> Result:
    """Run the delegate's ADD; returns its result.

    Raises:
        DelegateError: its error object, with its code.
        DelegateFailed: it was not found, died, or did not return a result.
    """
    name = verb_call.netconf.ipam_type
    answer = _run_plugin(verb_call, "ADD")
    try:
        result = from_json(strict_json.loads(answer), verb_call.netconf.cni_version)
    except ValueError as error:
        raise DelegateFailed(
            f"IPAM plugin {name} did not return valid JSON: {one_line(str(error))}", "Is it a CNI plugin?"
        ) from error
    except (DecodingFailure, InvalidNetconf) as error:
        raise DelegateFailed(
            f"IPAM plugin {name} did not return a CNI result: {error}", "Reinstall it."
        ) from error
    for ip in (each.address.ip for each in result.ips):
        if why := why_not_for_pods(ip):
            raise DelegateFailed(
                f"IPAM plugin {name} gave {ip}, which can't be a pod's address: {why}",
                "Correct its ranges.",
            )
    return result


def forward(verb_call: VerbCall, verb: str) -> None:
    """Run a verb that prints nothing on success.

    Raises:
        DelegateError: its error object, with its code.
        DelegateFailed: it was not found or died.
        DelegatesToItself: not for DEL and GC, since no ADD can have made anything.
    """
    try:
        _run_plugin(verb_call, verb)
    except DelegatesToItself as error:
        if verb not in ("DEL", "GC"):
            raise
        verb_call.warnings.append(str(error))


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for another program, without the variables of the frozen bundle.

    PyInstaller's bootloader may point LD_LIBRARY_PATH into the bundle and keeps what was there before in
    LD_LIBRARY_PATH_ORIG; a program that loads our libraries instead of its own crashes. What the caller
    itself has in LD_LIBRARY_PATH is left as it is.
    """
    clean = {
        name: value
        for name, value in environ.items()
        if name not in FROZEN_VARIABLES and not name.startswith(FROZEN_PREFIXES)
    }
    bundle = getattr(sys, "_MEIPASS", "")
    if bundle and clean.get("LD_LIBRARY_PATH", "").split(":", 1)[0] == bundle:
        del clean["LD_LIBRARY_PATH"]
        if environ.get("LD_LIBRARY_PATH_ORIG"):
            clean["LD_LIBRARY_PATH"] = environ["LD_LIBRARY_PATH_ORIG"]
    return clean


def _find_plugin(name: str, path: tuple[str, ...]) -> Path:
    if "/" in name or name in {"", ".", ".."}:
        raise InvalidNetconf(
            f"ipam.type {quoted(name)} is not a plugin name", "It is the name of a file in CNI_PATH."
        )
    if name in OWN_NAMES:
        raise DelegatesToItself(name)
    for directory in path:
        candidate = Path(directory) / name
        with suppress(OSError):  # a name longer than any file's
            if candidate.is_file() and os.access(candidate, os.X_OK):
                if _is_own(candidate, path):
                    raise DelegatesToItself(name, candidate)
                return candidate
    raise DelegateFailed(
        f"IPAM plugin {name} was not found in CNI_PATH ({':'.join(path) or 'which is not set'})",
        f"Install {name} there, or set ipam.type to azvnet-ipam.",
    )


def _is_own(candidate: Path, path: tuple[str, ...]) -> bool:
    """Whether a file is this plugin under another name: a link to it, or a copy."""
    import filecmp

    for directory in (os.path.dirname(sys.executable), *path):  # noqa: PTH120
        for name in OWN_FILES:
            own = Path(directory) / name
            with suppress(OSError):
                if candidate.samefile(own) or filecmp.cmp(candidate, own, shallow=False):
                    return True
    return False


def _die_with(parent: int) -> None:
    """prctl(2) PR_SET_PDEATHSIG: when an ADD is killed, its delegate must not go on."""
    _prctl(1, signal.SIGKILL)
    if os.getppid() != parent:  # it was killed before
        os.kill(os.getpid(), signal.SIGKILL)


def _stdin(verb_call: VerbCall) -> bytes:
    """The complete configuration. Only the version is set, if it was chosen from ``cniVersions``: the other
    plugin need not know that key.
    """
    conf = strict_json.loads(verb_call.call.stdin)
    if conf.get("cniVersion") == verb_call.netconf.cni_version or not conf.get("cniVersions"):
        return verb_call.call.stdin
    return strict_json.dumps({**conf, "cniVersion": verb_call.netconf.cni_version})


def _run_plugin(verb_call: VerbCall, verb: str) -> bytes:
    import subprocess  # most networks have no delegate

    name = verb_call.netconf.ipam_type
    program = _find_plugin(name, verb_call.parameters.path)
    environ = {**clean_environment(verb_call.call.environ), "CNI_COMMAND": verb, DELEGATED_BY: "azvnet"}
    # A file, not a pipe: a daemon that a delegate starts may keep its stderr open for ever.
    said = os.memfd_create("stderr")
    try:
        done = subprocess.run(
            [str(program)],
            input=_stdin(verb_call),
            stdout=subprocess.PIPE,
            stderr=said,
            env=environ,
            timeout=SECONDS,
            check=False,
            preexec_fn=partial(_die_with, os.getpid()),
        )
    except subprocess.TimeoutExpired as error:
        raise DelegateFailed(
            f"IPAM plugin {name} did not return within {SECONDS} s", "It was killed."
        ) from error
    except OSError as error:
        raise DelegateFailed(
            f"IPAM plugin {program} can't be run: {error.strerror}", "Reinstall it."
        ) from error
    finally:
        verb_call.warnings.extend(os.pread(said, SAID_BYTES, 0).decode(errors="replace").splitlines())
        os.close(said)
    if done.returncode:
        raise _error_of(done.stdout, name, done.returncode)
    return done.stdout


def _error_of(stdout: bytes, name: str, status: int) -> DelegateError | DelegateFailed:
    how = f"was killed by signal {-status}" if status < 0 else f"failed with exit status {status}"
    try:
        document = json.loads(stdout)
        code, msg, details = document["code"], str(document["msg"]), str(document.get("details") or "")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return DelegateFailed(
            f"IPAM plugin {name} {how} without returning a CNI error", "See its messages on stderr."
        )
    if type(code) is not int or not 0 < code <= LARGEST_CODE:
        return DelegateFailed(
            f"IPAM plugin {name} {how} and returned the invalid code {quoted(code)}: {msg}", details
        )
    return DelegateError(code, f"{name}: {msg}", details)
