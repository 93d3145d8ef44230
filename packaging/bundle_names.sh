#!/bin/sh
# bundle_names.sh BUNDLE: the two names that runtimes call, and the probe. A program's role is the name it is called by.
#
# Relative symbolic links: they survive cp -a, tar and image layers, cost no space, and the program finds
# its contents through /proc/self/exe, whatever the link's place. With a launcher, `azvnet` is the launcher.
set -eu
bundle=$1
source=$(dirname "$0")/launcher/launcher.c
rm -f "$bundle/azvnet" "$bundle/azvnet-ipam" "$bundle/azvnet-probe"
SOURCE=probe.c "$(dirname "$0")/launcher/build.sh" "$bundle/azvnet-probe"
if [ -e "$source" ]; then
    "$(dirname "$0")/launcher/build.sh" "$bundle/azvnet"
else
    ln -s azvnet-python "$bundle/azvnet"
fi
ln -s azvnet "$bundle/azvnet-ipam"
