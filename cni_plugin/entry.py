"""The thin start: decides this process's role, with next to nothing imported.

A runtime waits for every millisecond of this module. It answers VERSION by itself and loads the rest only
when needed. At its top it must import only built-in modules.
"""

import posix
import sys

from cni_plugin import stdio

IPAM_NAME = b"azvnet-ipam"


def main() -> int:
    """Handle the call that the environment describes, or the command line; returns the exit code."""
    environ = posix.environ
    name = sys.argv[0].encode(errors="surrogateescape").rsplit(b"/", 1)[-1]
    stdio.occupy_standard_descriptors()
    if len(sys.argv) > 1 or (b"CNI_COMMAND" not in environ and posix.isatty(0)):
        from cni_plugin.cli import run

        sys.exit(run(sys.argv[1:]))
    import gc

    # One call leaves little garbage, and collecting it takes a twentieth of the time.
    gc.disable()
    if environ.get(b"CNI_COMMAND") == b"VERSION":
        from cni_plugin.verbs.version import answer

        status = answer()
        if status is not None:
            return status
    from cni_plugin.process import serve_call

    return serve_call(as_ipam=name == IPAM_NAME)


if __name__ == "__main__":
    # Nothing is left to flush or close, and an orderly shutdown of the interpreter takes 15 ms.
    posix._exit(main())  # noqa: SLF001 - os._exit, without loading os
