#!/bin/sh
# Words that must not be in the tree: unfinished work, and places of one machine or one package index
# (locks and builds name none). Brackets keep this file from finding itself.
set -eu
cd "$(dirname "$0")/.."
words='TOD[O]|FIXM[E]|\bXX[X]\b|\bHAC[K]\b|/wor[k]/|/tmp/brie[f]|assistan[t]|pypi\.or[g]|pythonhoste[d]|proxy\.golan[g]|deb\.debia[n]'
if git ls-files -z --cached --others --exclude-standard -- ':!LICENSE' ':!*.sum' |
    xargs -0 grep -nEI -e "$words" -- /dev/null 2>/dev/null; then
    echo "hygiene: the lines above have words that do not belong into the tree" >&2
    exit 1
fi
