#!/bin/sh
# As in the official image: options alone mean redis-server, root becomes redis, and clients of
# other containers are let in (Debian's build refuses them unless told otherwise).
set -eu

case "$1" in
    -*|*.conf) set -- redis-server "$@" ;;
esac
[ "$1" = redis-server ] || exec "$@"

if [ "$(id -u)" = 0 ]; then
    find . \! -user redis -exec chown redis '{}' +
    exec setpriv --reuid=redis --regid=redis --clear-groups "$0" "$@"
fi
umask 0077
exec "$@" --protected-mode no
