"""Installing the bundle on a node, uninstalling it, and verifying it.

Owns the files below the prefix, the two names in the runtime's directory of plugins, and the conflist that it
wrote. It must not know what a call does, and never touches the kernel.
"""
