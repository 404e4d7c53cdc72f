"""The way into MariaDB, MySQL and Percona Server: root, through the container's local socket."""

from __future__ import annotations

from snapshots.drivers.base import Exec, completed
from snapshots.errors import EngineFailed

# Finds the way in through the local socket: root with the environment's password, or without one
# where the socket itself proves who asks. SQL comes by standard input, secrets stay inside the
# container and out of every argument list.
_WAY_IN = r"""
cli=mariadb; command -v mariadb >/dev/null 2>&1 || cli=mysql
options='--protocol=socket --user=root --default-character-set=utf8mb4 -N -B --raw --unbuffered'
given() {
  for name in "MARIADB_$1" "MYSQL_$1"; do
    eval "file=\${${name}_FILE:-} value=\${$name:-}"
    if [ -n "$file" ]; then cat "$file"; return; fi
    if [ -n "$value" ]; then printf %s "$value"; return; fi
  done
}
MYSQL_PWD=$(given ROOT_PASSWORD); export MYSQL_PWD
if ! $cli $options -e 'SELECT 1' >/dev/null 2>&1 </dev/null; then
  (unset MYSQL_PWD; $cli $options -e 'SELECT 1') >/dev/null 2>&1 </dev/null && unset MYSQL_PWD
fi
"""
CLIENT = _WAY_IN + "exec $cli $options\n"

# For every host of an account: the environment's password. The server's logs mask it; the client
# shows it with its errors, of which only the codes are let through. ERROR 1699: the account knows
# no password, but is known by its socket.
_ALIGN = (
    _WAY_IN
    + r"""
quoted() { sed "s/'/''/g"; }
set_password() {
  name=$(printf %s "$1" | quoted); password=$(printf %s "$2" | quoted)
  [ -n "$name" ] && [ -n "$password" ] || return 0
  $cli $options -e "SELECT Host FROM mysql.user WHERE User = '$name'
    AND plugin NOT IN ('unix_socket', 'auth_socket') AND (@@skip_name_resolve = 0
      OR Host = 'localhost' OR Host REGEXP '^[0-9./%]+$' OR Host LIKE '%:%')" </dev/null |
  while IFS= read -r host; do
    case $version in
      *MariaDB*) format="SET PASSWORD FOR '%s'@'%s' = PASSWORD('%s');" ;;
      *) format="ALTER USER '%s'@'%s' IDENTIFIED BY '%s';" ;;
    esac
    printf "$format\n" "$name" "$host" "$password"
  done
}
version=$($cli $options -e 'SELECT VERSION()' </dev/null) || exit 1
failed=$({ printf "SET SESSION sql_log_off = 1, SESSION sql_mode = 'NO_BACKSLASH_ESCAPES';\n"
  set_password "$(given USER)" "$(given PASSWORD)"
  set_password root "$(given ROOT_PASSWORD)"
} | $cli $options --force 2>&1 >/dev/null |
  sed -n 's/^\(ERROR [0-9]* ([0-9A-Z]*)\).*/\1/p' | grep -v 'ERROR 1699')
[ -z "$failed" ] || { printf '%s\n' "$failed" >&2; exit 1; }
"""
)


def align_passwords(run: Exec) -> None:
    """Root and the user of the environment get its passwords. Raises EngineFailed."""
    _as_root(run, _ALIGN, "", "setting the passwords to the current ones", 30)


def query(run: Exec, statements: str, doing: str, timeout: float = 30) -> str:
    """What SQL statements answer, columns between tabs. Raises EngineFailed."""
    return _as_root(run, CLIENT, statements, doing, timeout)


def _as_root(run: Exec, script: str, stdin: str, doing: str, timeout: float) -> str:
    result = run(["sh", "-c", script], stdin=stdin, timeout=timeout)
    if result.code != 0 and "ERROR 1045" in result.stderr:
        raise EngineFailed(
            f"{doing} failed: root is not let in with the ROOT_PASSWORD of the environment, as the "
            "data was made with another one. Set that one, change it in the running server, and "
            "then in the environment; or let root in through the socket, once and for all: "
            "ALTER USER root@localhost IDENTIFIED VIA mysql_native_password USING 'invalid' "
            "OR unix_socket"
        )
    return completed(result, doing)
