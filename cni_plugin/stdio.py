"""stdin and stdout for the thin start: read, give back, write, with built-in modules alone.

It must not know what is read or written.
"""

import posix

READ_BYTES = 1 << 16


def occupy_standard_descriptors() -> None:
    """Occupy standard descriptors that the caller has closed, so that no file or socket of ours gets their
    numbers. Writing to stdout then fails, as it should.
    """
    for fd, flags in ((0, posix.O_RDONLY), (1, posix.O_RDONLY), (2, posix.O_WRONLY)):
        try:
            posix.fstat(fd)
        except OSError:
            null = posix.open("/dev/null", flags)
            if null != fd:
                posix.dup2(null, fd)
                posix.close(null)


def read_stdin() -> bytes:
    """Everything on stdin; raises OSError when it can't be read."""
    data = b""
    while chunk := posix.read(0, READ_BYTES):
        data += chunk
    return data


def give_back(stdin: bytes) -> None:
    """Make stdin readable again, as descriptor 0, for the code that handles the call instead."""
    fd = posix.memfd_create("stdin", 0)
    view = memoryview(stdin)
    while view:
        view = view[posix.write(fd, view) :]
    posix.lseek(fd, 0, 0)
    posix.dup2(fd, 0)
    posix.close(fd)


def write_all(fd: int, data: bytes) -> bool:
    """Write everything; whether that worked."""
    view = memoryview(data)
    while view:
        try:
            view = view[posix.write(fd, view) :]
        except OSError:
            return False
    return True
