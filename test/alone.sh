#!/bin/sh
# Runs a command in a mount namespace of its own, where that can be made. Nobody else, such
# as a du of the whole machine, walks through what is mounted there, asks its servers, and
# keeps it from being unmounted; and what is unmounted there leaves the namespaces that
# commands beside it have made, too.
#
# usage: alone.sh COMMAND [ARGUMENT...]
if ! unshare --mount true 2>/dev/null; then
	exec "$@"
fi
exec unshare --mount --propagation private sh -c 'mount --make-rshared / && exec "$@"' sh "$@"
