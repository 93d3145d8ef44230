#!/bin/sh
# An IPAM plugin for tests: writes down every call with its environment and input, then does what
# $RECORD/answer says: prints it, and fails when it holds a "code".
record=/run/recorder
mkdir -p "$record"
cat >"$record/$CNI_COMMAND.stdin"
env >"$record/$CNI_COMMAND.env"
echo "$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME" >>"$record/calls"
answer=$record/answer.$CNI_COMMAND
[ -e "$answer" ] || exit 0
cat "$answer"
! grep -q '"code"' "$answer"
