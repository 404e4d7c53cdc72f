"""The configuration of one port's HAProxy, and what HAProxy says of itself. Pure.

The file is the whole state: whoever starts HAProxy from it serves the world that it names.

How connections are held was measured, at 300 fresh ones a second: a backend's queue wakes all of
them at once when a server is ready, and lost none of 11,400. A frontend's `maxconn` of 0 deadlocked
HAProxy 2.6 when it was raised again; a Lua action that sleeps was not woken once in 3,000 times;
retries alone wait up to their interval longer than they must. A queue needs a server that is up and
busy: `gate`, at an address where nobody answers, which takes one connection after the other and
lets it try until the world's own server is ready.

Who came first is served first, or the wait of some would be longer than the hold: a connection
that has tried the gate in vain is queued again, so the queue goes by the time of coming, and the
world gets no more at once than it keeps up with (ingresstalk).
"""

from __future__ import annotations

import csv
import ipaddress
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from reconciler.config import Ingress

FILE = "haproxy.cfg"
INSIDE = "/etc/lockstep"
RUN_INSIDE = "/run/lockstep"
SOCKET = "socket"
PORT = 20000
"""Where HAProxy listens, inside its container."""

UNLIMITED = 65536
"""As many connections to a world's server as HAProxy could have."""

_CONNECT_SECONDS = 0.1
_ORDER = "date(0,ms),div(100),mod(4095),sub(2047)"
"""A connection's place in the queue: its tenth of a second. It begins anew every 410 s; who came
before that in a hold is served after those who came since."""
_NO_ADDRESS, _FORCED = 0x20, 0x01
"""Bits of a server's admin state: no address is known, and taken out of service."""
_RUNNING = 2


@dataclass(frozen=True)
class Pointing:
    """Whom a port's HAProxy serves: a container by its name, which Docker resolves."""

    container: str
    port: int
    proxy: bool

    @property
    def server(self) -> str:
        """The server line that serves it."""
        return "proxy" if self.proxy else "plain"


def text(pointing: Pointing, settings: Ingress, gate: str, *, serving: bool) -> str:
    """haproxy.cfg. Not `serving`: it holds every connection until it is told whom to serve.

    `gate`: an address of its network that nobody has.
    """

    def server(name: str) -> str:
        on = serving and name == pointing.server
        more = " send-proxy-v2" if name == "proxy" else ""
        off = "" if on else " disabled"
        limit = f" maxconn {UNLIMITED}"
        return f"    server {name} {pointing.container}:{pointing.port}{limit}{more}{off}"

    return "\n".join(
        [
            "# Written by Lockstep; every switch writes it anew.",
            "global",
            "    nbthread 2",
            f"    fd-hard-limit {UNLIMITED}",
            f"    stats socket {RUN_INSIDE}/{SOCKET} mode 600 level admin",
            "defaults",
            "    mode tcp",
            "    option clitcpka",
            "    option srvtcpka",
            # Who gave up while he was held must not have his order carried out afterwards.
            "    option abortonclose",
            "    option redispatch 1",
            f"    retries {math.ceil(settings.hold / _CONNECT_SECONDS)}",
            f"    timeout connect {_CONNECT_SECONDS * 1000:.0f}ms",
            f"    timeout queue {settings.hold * 1000:.0f}ms",
            "    timeout client 7d",
            "    timeout server 7d",
            "resolvers docker",
            "    nameserver docker 127.0.0.11:53",
            "    resolve_retries 3",
            "    timeout resolve 1s",
            "    timeout retry 1s",
            "    hold valid 1s",
            "frontend port",
            f"    bind :{PORT} backlog 65535",
            f"    tcp-request content set-priority-class {_ORDER}",
            "    default_backend world",
            "backend world",
            # One line: a second one would undo what this one says.
            "    default-server resolvers docker resolve-prefer ipv4 resolve-opts allow-dup-ip"
            " init-addr last,libc,127.0.0.1",
            f"    server gate {gate}:9 maxconn 1" + (" disabled" if serving else ""),
            server("plain"),
            server("proxy"),
            "",
        ]
    )


def pointing_of(config: str) -> Pointing | None:
    """Whom a configuration serves; None when it holds, or is none of ours."""
    found = re.search(
        r"^    server (plain|proxy) (\S+):(\d+)(?: maxconn \d+)?(?: send-proxy-v2)?$", config, re.M
    )
    if found is None:
        return None
    return Pointing(found[2], int(found[3]), found[1] == "proxy")


def hold() -> tuple[str, ...]:
    """Commands: whoever comes from now on waits."""
    return (
        "set server world/gate state ready",
        "set server world/plain state maint",
        "set server world/proxy state maint",
    )


def point(pointing: Pointing, address: str, own: str) -> tuple[str, ...]:
    """Commands: be ready to serve this container, whoever waits goes on waiting. `own`: HAProxy's
    own container."""
    # Another name in between: what is known of a name that was stopped meanwhile would count.
    return tuple(
        command
        for name in (own, pointing.container)
        for command in (
            f"set server world/plain fqdn {name}",
            f"set server world/proxy fqdn {name}",
        )
    ) + tuple(
        f"set server world/{server} addr {address} port {pointing.port}"
        for server in ("plain", "proxy")
    )


def serve(pointing: Pointing, at_once: int = UNLIMITED) -> tuple[str, ...]:
    """Commands: who waited, and whoever comes, is served; `at_once`: so many connections."""
    other = "plain" if pointing.proxy else "proxy"
    return (
        limit(pointing, at_once),
        f"set server world/{pointing.server} state ready",
        f"set server world/{other} state maint",
        "set server world/gate state maint",
    )


def limit(pointing: Pointing, at_once: int) -> str:
    """Command: so many connections to the world at once; who comes besides waits in turn."""
    return f"set maxconn server world/{pointing.server} {at_once}"


@dataclass(frozen=True)
class Server:
    """A server as the running HAProxy has it."""

    name: str
    address: str
    container: str
    port: int
    up: bool
    """Takes connections, as far as HAProxy knows."""
    known: bool
    """It has an address."""


def servers(said: str) -> dict[str, Server]:
    """From the answer to `show servers state world`."""
    lines = [line.split() for line in said.splitlines()]
    names = next((line[1:] for line in lines if line[:2] == ["#", "be_id"]), [])
    found = {}
    for line in lines:
        row = dict(zip(names, line, strict=False))
        if len(line) != len(names) or line[0] == "#":
            continue
        admin = int(row["srv_admin_state"])
        found[row["srv_name"]] = Server(
            name=row["srv_name"],
            address=row["srv_addr"],
            container=row["srv_fqdn"],
            port=int(row["srv_port"]),
            up=int(row["srv_op_state"]) == _RUNNING and not admin & (_FORCED | _NO_ADDRESS),
            known=not admin & _NO_ADDRESS and row["srv_addr"] != "-",
        )
    return found


def aims(said: Mapping[str, Server], pointing: Pointing, address: str) -> bool:
    """Whether the running HAProxy knows this container, at this address, as the one to serve, be
    it now or later."""
    server, wanted = said.get(pointing.server), (pointing.container, pointing.port, address)
    if server is None or not server.known:
        return False
    return (server.container, server.port, server.address) == wanted


def serves(said: Mapping[str, Server], pointing: Pointing) -> bool:
    """Whether the running HAProxy serves this container, and nobody waits."""
    server, gate = said.get(pointing.server), said.get("gate")
    if server is None or gate is None:
        return False
    here = (server.container, server.port) == (pointing.container, pointing.port)
    # One without an address is of a container that stands still: not the ingress's doing.
    return here and not gate.up and (server.up or not server.known)


@dataclass(frozen=True)
class Counted:
    """HAProxy's own figures of a port, since its counters were cleared."""

    open: int
    """Connections to the world at this moment."""
    waiting: int
    limit: int
    """Of connections to the world at once."""
    connections: int
    errors: int
    """Connections that could not be made, or broke on the world's side."""
    retries: int
    connect_ms: int
    """Mean of the last 1,024 connections, as HAProxy has it."""
    total_ms: int


def counted(said: str) -> Counted:
    """From the answer to `show stat`."""
    rows = csv.DictReader(said.lstrip("# ").splitlines())
    by_name = {row["svname"]: row for row in rows if row.get("pxname") == "world"}

    def number(of: str, column: str) -> int:
        return int(by_name.get(of, {}).get(column) or 0)

    return Counted(
        open=number("plain", "scur") + number("proxy", "scur"),
        waiting=number("BACKEND", "qcur") + number("gate", "scur") + number("gate", "qcur"),
        limit=min(number(server, "slim") or UNLIMITED for server in ("plain", "proxy")),
        connections=number("plain", "stot") + number("proxy", "stot"),
        errors=sum(number("BACKEND", c) for c in ("econ", "eresp", "srv_abrt")),
        retries=number("plain", "wretr") + number("proxy", "wretr"),
        connect_ms=number("BACKEND", "ctime"),
        total_ms=number("BACKEND", "ttime"),
    )


def unused_address(subnet: str) -> str:
    """The last address of a network that a container could have: Docker gives them from the
    first."""
    network = ipaddress.ip_network(subnet)
    return str(network[-3])
