"""What runs in the frozen interpreter before ``cni_plugin/entry.py``, in place of PyInstaller's bootstrap.

PyInstaller's own bootstrap installs an importer for its compressed archive and wraps ``ctypes``: 10 ms
of every start. This bundle has no archive (its modules are files, found by the interpreter's own
finder) and loads no library through ``ctypes`` by file name, so only this is left to do:

- ``sys.frozen``, what frozen programs are recognised by.
- Our environment is the caller's again. The bootloader puts the bundle's libraries into LD_LIBRARY_PATH
  and executes itself once more; the dynamic loader has read it by now, and a plugin, ``iptables`` or
  ``modprobe`` that we run must not see it (its libraries would be ours).
- A caller's environment that pretends this second execution has happened is not believed: without the
  bundle's path in LD_LIBRARY_PATH, libraries would come from the host. Start over without the pretence.

Only built-in modules: nothing here may cost a file.
"""

import posix
import sys

OURS = (
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
    library_path = environ.get(b"LD_LIBRARY_PATH", b"")
    for name in OURS:
        if environ.pop(name, None) is not None:
            posix.unsetenv(name)
    if library_path != contents and not library_path.startswith(contents + b":"):
        posix.execve("/proc/self/exe", sys.orig_argv, environ)
    original = environ.pop(b"LD_LIBRARY_PATH_ORIG", None)
    posix.unsetenv(b"LD_LIBRARY_PATH_ORIG")
    if original:
        environ[b"LD_LIBRARY_PATH"] = original
        posix.putenv(b"LD_LIBRARY_PATH", original)
    else:
        del environ[b"LD_LIBRARY_PATH"]
        posix.unsetenv(b"LD_LIBRARY_PATH")


setattr(sys, "frozen", True)  # noqa: B010
restore_environment()
