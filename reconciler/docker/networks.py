"""Networks: found, made, joined, and removed by full name with a label check."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from reconciler.docker.containers import Containers
from reconciler.docker.dockervalues import (
    PROJECT,
    NetworkInfo,
)
from reconciler.docker.failing import mapped, suppress_there
from reconciler.errors import Refused


class Networks(Containers):
    """What is done with networks."""

    def join_network(self, container_id: str, network: str, address: str | None = None) -> None:
        """Connect a container to a network, running or not; there already is fine. `address`: if
        the network lets one be chosen."""
        from docker.errors import APIError

        api: Any = self._api  # its stubs want to know no addresses
        with self._mapped_container("connect", container_id), suppress_there(APIError):
            try:
                api.connect_container_to_network(container_id, network, ipv4_address=address)
            except APIError as error:
                if address is None or "user configured subnets" not in str(error):
                    raise
                api.connect_container_to_network(container_id, network)

    def leave_network(self, container_id: str, network: str) -> None:
        """Disconnect a container from a network; not connected, or gone, is fine."""
        from docker.errors import APIError, NotFound

        with self._mapped_container("disconnect", container_id), suppress(NotFound):
            try:
                self._api.disconnect_container_from_network(container_id, network)
            except APIError as error:
                if "is not connected" not in str(error):
                    raise

    def network(self, name: str) -> NetworkInfo | None:
        """One network by its exact name; None when there is none."""
        with mapped(f"network {name}"):
            found = self._api.networks(names=[name])
        for entry in found:
            if entry["Name"] == name:
                pools = (entry.get("IPAM") or {}).get("Config") or ()
                subnets = tuple(pool["Subnet"] for pool in pools if "Subnet" in pool)
                return NetworkInfo(name, entry.get("Labels") or {}, subnets)
        return None

    def networks_of(self, project: str) -> tuple[str, ...]:
        """Names of the networks that Compose made for a project."""
        return self.networks_labelled([f"{PROJECT}={project}"])

    def create_network(
        self, name: str, labels: Mapping[str, str], model: Mapping[str, Any]
    ) -> None:
        """A network as a compose model describes it (driver, ipam, options)."""
        from docker.types import IPAMConfig, IPAMPool

        ipam = model.get("ipam") or {}
        pools = [
            IPAMPool(
                subnet=pool.get("subnet"),
                iprange=pool.get("ip_range"),
                gateway=pool.get("gateway"),
                aux_addresses=pool.get("aux_addresses"),
            )
            for pool in ipam.get("config") or ()
        ]
        with mapped(f"network {name}"):
            self._api.create_network(
                name,
                driver=model.get("driver"),
                options=model.get("driver_opts"),
                ipam=IPAMConfig(driver=ipam.get("driver", "default"), pool_configs=pools),
                internal=bool(model.get("internal", False)),
                attachable=bool(model.get("attachable", False)),
                enable_ipv6=bool(model.get("enable_ipv6", False)),
                labels=dict(labels),
                check_duplicate=True,
            )

    def remove_network(self, name: str, *, labels: Mapping[str, str]) -> None:
        """Remove a network that has these labels; gone already is fine. Raises Refused else."""
        found = self.network(name)
        if found is None:
            return
        if not labels or any(found.labels.get(k) != v for k, v in labels.items()):
            raise Refused(f"network {name} is not labelled as ours: not removed")
        with mapped(f"remove network {name}"):
            self._api.remove_network(name)
