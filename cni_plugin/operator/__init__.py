"""``azvnet operator`` as a process; what it does is in ``ipam.operator``."""
