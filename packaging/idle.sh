#!/bin/sh
# idle.sh COMMAND...: runs a command with what others leave of the processors and the disk.
set -eu
# Where a session is scheduled as a group, nice and policy count within it only (sched(7), "The autogroup
# feature"): the caller has made a session for this, and its group is told to be nice as well.
{ echo 19 >/proc/self/autogroup; } 2>/dev/null || true
# A container may forbid the policy; nice is enough then.
if chrt --idle 0 true 2>/dev/null; then
    set -- chrt --idle 0 "$@"
fi
exec ionice --ignore --class idle nice -n 19 "$@"
