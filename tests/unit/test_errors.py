"""The codes of errors: the spec's where it has one, ours from 100, each once, each documented."""

from __future__ import annotations

import errno
import json
import re
from pathlib import Path

import pytest

from cni_plugin.cni import contract, errors
from cni_plugin.cni.errors import CniError, DelegateError, PoolError
from ipam import errors as ipam_errors

DOCS = Path(__file__).parents[2] / "docs" / "errors.md"
OF_THE_SPEC = {1, 2, 3, 4, 5, 6, 7, 11, 50, 51}
OF_LIBCNI = {8, 999}
ROW = re.compile(r"^\| (\d+) \| (?:`(\w*)`)? ?\|([^|]+)\|([^|]+)\|$", re.MULTILINE)


def _classes() -> list[type[CniError]]:
    """Every class of errors with a code of its own, beside those of the pool."""
    found = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, CniError)]
    return [each for each in found if each not in (CniError, DelegateError, PoolError)]


def test_every_code_is_given_once_and_lies_in_its_range() -> None:
    codes = [each.code for each in _classes()]
    assert len(codes) == len(set(codes))
    assert all(code in OF_THE_SPEC | OF_LIBCNI or code >= 100 for code in errors.own_codes())
    assert 3 not in errors.own_codes(), "at an unknown container the runtime would skip its clean-up"


def test_every_code_is_documented_with_its_meaning_and_what_to_do() -> None:
    rows = {
        int(code): (name, meaning, remedy) for code, name, meaning, remedy in ROW.findall(DOCS.read_text())
    }
    of_the_pool = {code: each.__name__ for each, code in reversed(errors.POOL_CODES.items())}
    expected = of_the_pool | {each.code: each.__name__ for each in _classes()} | {CniError.code: ""}
    assert {code: name for code, (name, _, _) in rows.items()} == expected
    assert all(meaning.strip() and remedy.strip() for _, meaning, remedy in rows.values())
    assert list(rows) == sorted(rows)


@pytest.mark.parametrize("each", _classes(), ids=lambda each: each.__name__)
def test_every_error_says_what_it_is_about(each: type[CniError]) -> None:
    assert each.__doc__
    document = json.loads(contract.failure(each("what is wrong", "What to do."), "1.0.0", "id").stdout)
    assert document == {
        "cniVersion": "1.0.0",
        "code": each.code,
        "msg": "what is wrong",
        "details": "What to do. (call id)",
    }


OF_THE_POOL = [
    each
    for each in vars(ipam_errors).values()
    if isinstance(each, type)
    and issubclass(each, ipam_errors.IpamError)
    and each is not ipam_errors.IpamError
]


@pytest.mark.parametrize("kind", OF_THE_POOL, ids=lambda kind: kind.__name__)
def test_an_error_of_the_pool_gets_its_code_wherever_it_was_raised(
    kind: type[ipam_errors.IpamError],
) -> None:
    error = kind.__new__(kind)
    ipam_errors.IpamError.__init__(error, "what is wrong", "What to do.")
    reply = contract.failure(error, "1.1.0", "id")
    code = next(errors.POOL_CODES[base] for base in kind.__mro__ if base in errors.POOL_CODES)
    assert json.loads(reply.stdout) == {
        "cniVersion": "1.1.0",
        "code": code,
        "msg": "what is wrong",
        "details": "What to do. (call id)",
    }
    assert code in errors.own_codes() - {999}
    assert isinstance(reply.error, CniError), "no traceback in the log: it is not a defect"


@pytest.mark.parametrize(
    ("error", "code", "msg"),
    [
        (OSError(errno.EMFILE, "Too many open files", "/proc/self/ns/net"), 11, "/proc/self/ns/net: "),
        (
            OSError(errno.ENOBUFS, "create a veth pair: No buffer space available"),
            11,
            "create a veth pair: No",
        ),
        (InterruptedError(errno.EINTR, "list the links: interrupted by changes"), 11, "list the links"),
        (TimeoutError("source.lock is held"), 11, "source.lock is held"),
        (OSError(errno.EACCES, "Permission denied", "/proc/sys/x"), 106, "/proc/sys/x: Permission denied"),
        (OSError(errno.ENOENT, "No such file or directory", "/proc/sys/x"), 106, "/proc/sys/x: No such"),
        (OSError(errno.EOPNOTSUPP, "delete link 7: Operation not supported"), 106, "delete link 7"),
        (OSError(errno.EBADF, "Bad file descriptor"), 999, "internal error"),
    ],
)
def test_a_system_call_that_fails_says_what_about_and_whether_it_may_pass(
    error: OSError, code: int, msg: str
) -> None:
    document = json.loads(contract.failure(error, "1.1.0").stdout)
    assert document["code"] == code
    assert document["msg"].startswith(msg)
    assert document["details"]


def test_what_is_not_ours_is_999_and_its_traceback_is_not_told() -> None:
    try:
        raise KeyError("secret")
    except KeyError as error:
        reply = contract.failure(error, "1.1.0", "id")
    document = json.loads(reply.stdout)
    assert document["code"] == 999
    assert "KeyError" in document["msg"]
    assert "Traceback" not in reply.stdout.decode()
    assert isinstance(reply.error, KeyError)


def test_an_error_of_a_delegate_keeps_its_code() -> None:
    document = json.loads(contract.failure(DelegateError(117, "msg", "details"), "0.4.0").stdout)
    assert document == {"cniVersion": "0.4.0", "code": 117, "msg": "msg", "details": "details"}
