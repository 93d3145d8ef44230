"""What runs in the frozen interpreter before ``cni_plugin/entry.py``, in place of PyInstaller's bootstrap.

PyInstaller's own bootstrap installs an importer for its compressed archive and wraps ``ctypes``: 10 ms
of every start. This bundle has no archive (its modules are files, found by the interpreter's own
finder) and loads no library through ``ctypes`` by file name, so only this is left to do:

- ``sys.frozen``, what frozen programs are recognised by.
- Our environment is the caller's again. The bootloader puts the bundle's libraries into LD_LIBRARY_PATH
  and executes itself once more; a plugin, ``iptables`` or ``modprobe`` that we run must not see that,
  its libraries would be ours. We do not need it: the executable's run path names the same directory.

Only built-in modules: nothing here may cost a file.
"""

import posix
import sys

BOOTLOADERS = (
    b"_MEIPASS2",
    b"_PYI_APPLICATION_HOME_DIR",
    b"_PYI_ARCHIVE_FILE",
    b"_PYI_LINUX_PROCESS_NAME",
    b"_PYI_PARENT_PROCESS_LEVEL",
    b"_PYI_SPLASH_IPC",
)


def restore_environment() -> None:
    """Undo what the bootloader did to the environment; ``os.environ`` is made from ``posix.environ``."""
    environ = posix.environ
    contents = sys._MEIPASS.encode("utf-8", "surrogateescape")  # type: ignore[attr-defined]  # noqa: SLF001
    for name in BOOTLOADERS:
        if environ.pop(name, None) is not None:
            posix.unsetenv(name)
    library_path = environ.get(b"LD_LIBRARY_PATH")
    if library_path is not None and library_path.split(b":", 1)[0] == contents:
        del environ[b"LD_LIBRARY_PATH"]
        posix.unsetenv(b"LD_LIBRARY_PATH")
        original = environ.pop(b"LD_LIBRARY_PATH_ORIG", None)
        if original:
            posix.unsetenv(b"LD_LIBRARY_PATH_ORIG")
            environ[b"LD_LIBRARY_PATH"] = original
            posix.putenv(b"LD_LIBRARY_PATH", original)


setattr(sys, "frozen", True)  # noqa: B010
restore_environment()
