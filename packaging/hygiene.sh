#!/bin/sh
# What must not be in the tree: marks of unfinished work, conflicts of a merge, space at the end of a line.
# Brackets keep this file from finding itself.
set -eu
cd "$(dirname "$0")/.."
marks='TOD[O]|FIXM[E]|\bXX[X]\b|\bHAC[K]\b|^(<{7}|>{7}|\|{7})( |$)|^={7}$|[[:blank:]]$'
found=$(git ls-files -z --cached --others --exclude-standard -- ':!LICENSE' ':!*.sum' |
    xargs -0 grep -nEI -e "$marks" -- /dev/null 2>/dev/null) || true
if [ -n "$found" ]; then
    echo "$found"
    echo "hygiene: the lines above are unfinished, or end in space" >&2
    exit 1
fi
