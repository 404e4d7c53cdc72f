#!/bin/sh
# What a compose project relies on in the official image: an empty folder becomes a server with
# MARIADB_ROOT_PASSWORD, MARIADB_DATABASE, MARIADB_USER and MARIADB_PASSWORD; root gives its
# password on the local socket, too.
set -eu

[ "${1#-}" = "$1" ] || set -- mariadbd "$@"
[ "$1" = mariadbd ] || exec "$@"

if [ "$(id -u)" = 0 ]; then
    find /var/lib/mysql /run/mysqld \! -user mysql -exec chown mysql:mysql '{}' +
    exec setpriv --reuid=mysql --regid=mysql --init-groups "$0" "$@"
fi

if [ ! -d /var/lib/mysql/mysql ]; then
    mariadb-install-db --datadir=/var/lib/mysql --auth-root-authentication-method=normal \
        --skip-test-db >/dev/null
    { printf "DELETE FROM mysql.global_priv WHERE User = 'root' AND Host <> 'localhost';\n"
      printf 'FLUSH PRIVILEGES;\n'
      [ -z "${MARIADB_DATABASE:-}" ] || printf 'CREATE DATABASE `%s`;\n' "$MARIADB_DATABASE"
      [ -z "${MARIADB_USER:-}" ] ||
          printf "CREATE USER '%s'@'%%' IDENTIFIED BY '%s';\nGRANT ALL ON *.* TO '%s'@'%%';\n" \
              "$MARIADB_USER" "$MARIADB_PASSWORD" "$MARIADB_USER"
      printf "SET PASSWORD FOR root@localhost = PASSWORD('%s');\n" "$MARIADB_ROOT_PASSWORD"
    } | mariadbd --bootstrap
fi

exec "$@"
