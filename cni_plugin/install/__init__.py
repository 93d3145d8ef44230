"""Putting the bundle on a node, taking it away, and saying whether it is whole.

Owns the files below the prefix, the two names in the runtime's directory of plugins, and the conflist that it
wrote. It must not know what a call does, and never touches the kernel.
"""
