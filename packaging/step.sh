#!/bin/sh
# step.sh NAME COMMAND...: says what starts, runs it, says how long it took and how it ended.
set -u
name=$1
shift
echo "==> $name"
start=$(date +%s)
"$@"
code=$?
took=$(($(date +%s) - start))
if [ "$code" = 0 ]; then
    echo "    $name: done, ${took} s"
else
    echo "    $name: FAILED with code $code, ${took} s" >&2
fi
exit "$code"
