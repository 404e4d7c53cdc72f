"""Who holds ports of this host that a release publishes."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from reconciler.docker import Listed
from reconciler.facts import PortHolder
from reconciler.project.compose import PublishedPort

_LISTENING = {"tcp": "0A", "udp": "07"}
"""Socket states in /proc/net: a UDP socket without a peer is `close`."""


def holders(
    wanted: Sequence[PublishedPort], running: Iterable[Listed], ours: Callable[[Listed], bool]
) -> tuple[PortHolder, ...]:
    """Running containers, and processes of the host, that hold wanted ports.

    `ours`: whether a container is of the world that will be stopped first.
    """
    running = list(running)
    found = []
    for port in wanted:
        publishing = [
            (container, published)
            for container in running
            for published in container.ports
            if (published.port, published.protocol) == (port.port, port.protocol)
            and _overlap(published.host_ip, port.ip)
        ]
        foreign = sorted({c.name for c, _ in publishing if not ours(c)})
        found += [PortHolder(port.port, port.protocol, f"container {name}") for name in foreign]
        # A published port is also a socket of Docker's own, and a container on the host's network
        # looks like any process.
        explained = publishing or any(ours(c) and c.network_mode == "host" for c in running)
        if not explained and any(_overlap(ip, port.ip) for ip in _bound(port.port, port.protocol)):
            found.append(PortHolder(port.port, port.protocol, "a process of this host"))
    return tuple(dict.fromkeys(found))


def _bound(port: int, protocol: str) -> list[str]:
    """Addresses on which a process of this host waits at a port; "" is every address."""
    found = []
    for table in (protocol, f"{protocol}6"):
        try:
            lines = Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            address, _, hex_port = fields[1].partition(":")
            if int(hex_port, 16) == port and fields[3] == _LISTENING.get(protocol):
                found.append(_address(address))
    return found


def _address(text: str) -> str:
    """The kernel's hexadecimal, each four bytes in the machine's order, as usually written."""
    words = [bytes.fromhex(text[i : i + 8])[::-1] for i in range(0, len(text), 8)]
    address = ipaddress.ip_address(b"".join(words))
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def _overlap(one: str, other: str) -> bool:
    return one == other or any(ip in ("", "0.0.0.0", "::") for ip in (one, other))
