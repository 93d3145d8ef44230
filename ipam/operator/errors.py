"""Why the API server of the cluster does not do what it is asked, told apart by what helps."""

from __future__ import annotations

from ipam.provision.watching import NotFollowed, TooOld


class ClusterError(NotFollowed):
    """The API server can't be asked, or refuses; says why."""


class Conflict(ClusterError):
    """Somebody else has written the object meanwhile."""


class NotThere(ClusterError):
    """There is no such object."""


class Expired(ClusterError, TooOld):
    """A watch can't begin there any more: everything has to be listed again."""
