"""What would let a container take over its host is refused unless the config allows it."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.project import dangers


def model(body: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": "shop", "services": {"web": {"image": "web", **body}}, **more}


def bind(source: str, *, read_only: bool = False) -> dict[str, Any]:
    return {"volumes": [{"type": "bind", "source": source, "target": "/x", "read_only": read_only}]}


DANGEROUS: dict[str, dict[str, Any]] = {
    "privileged": {"privileged": True},
    "host-gate": {"x-lockstep": {"gate": [{"tcp": 80}, {"host": ["sh", "smoke.sh"]}]}},
    "api-socket": {"use_api_socket": True},
    "cap:SYS_ADMIN": {"cap_add": ["SYS_ADMIN"]},
    "cap:ALL": {"cap_add": ["all"]},
    "cap:SYS_PTRACE": {"cap_add": ["CAP_SYS_PTRACE"]},
    "device:/dev/sda": {"devices": [{"source": "/dev/sda", "target": "/dev/sda"}]},
    "device:/dev/mem": {"devices": ["/dev/mem:/dev/mem:rwm"]},
    "device:b 8:* rwm": {"device_cgroup_rules": ["b 8:* rwm"]},
    "security:seccomp:unconfined": {"security_opt": ["seccomp=unconfined"]},
    "security:apparmor:unconfined": {"security_opt": ["apparmor:unconfined"]},
    "security:label:disable": {"security_opt": ["label:disable"]},
    "pid:host": {"pid": "host"},
    "ipc:host": {"ipc": "host"},
    "uts:host": {"uts": "host"},
    "userns:host": {"userns_mode": "host"},
    "cgroup:host": {"cgroup": "host"},
    "network:host": {"network_mode": "host"},
    "network:container:other": {"network_mode": "container:other"},
    "pid:container:other": {"pid": "container:other"},
    "container:other": {"volumes_from": ["container:other:ro"]},
    "bind:/": bind("/"),
    "bind://": bind("//"),
    "bind:/etc": bind("/etc", read_only=True),
    "bind:/etc/cron.d": bind("/etc/cron.d"),
    "bind:/srv/../etc": bind("/srv/../etc"),
    "bind:/etc/localtime": bind("/etc/localtime"),
    "bind:/proc": bind("/proc"),
    "bind:/sys/fs/cgroup": bind("/sys/fs/cgroup", read_only=True),
    "bind:/dev": bind("/dev"),
    "bind:/var": bind("/var"),
    "bind:/root": bind("/root"),
    "bind:/root/.ssh": bind("/root/.ssh", read_only=True),
    "bind:/usr/bin": bind("/usr/bin"),
    "bind:/var/lib/docker/volumes": bind("/var/lib/docker/volumes"),
    "bind:/var/run/docker.sock": bind("/var/run/docker.sock", read_only=True),
    "bind:/opt/run/docker.sock": bind("/opt/run/docker.sock"),
    "bind:/srv/link": bind("/srv/link"),
    "bind:/srv/shop": bind("/srv/shop", read_only=True),
    "bind:/srv/shop/releases/store": bind("/srv/shop/releases/store", read_only=True),
    "bind:/srv/shop/.lockstep": bind("/srv/shop/.lockstep", read_only=True),
    "build-privileged": {"build": {"context": "/srv/shop", "privileged": True}},
    "build:/etc": {"build": {"context": "/etc"}},
    "build:/root/.ssh": {"build": {"context": "/srv", "additional_contexts": {"k": "/root/.ssh"}}},
}

HARMLESS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "folder of the project": bind("/srv/shop/uploads"),
    "elsewhere": bind("/data"),
    "home": bind("/home/bob/shop/data"),
    "time": bind("/etc/localtime", read_only=True),
    "certificates": bind("/etc/ssl/certs", read_only=True),
    "like a socket": bind("/srv/docker.sock.d"),
    "capability": {"cap_add": ["NET_BIND_SERVICE", "SYS_NICE"]},
    "no-new-privileges": {"security_opt": ["no-new-privileges:true"]},
    "service's network": {"network_mode": "service:other"},
    "no network": {"network_mode": "none"},
    "volume": {"volumes": [{"type": "volume", "source": "data", "target": "/x"}]},
    "build": {"build": {"context": "/srv/shop", "additional_contexts": {"b": "docker-image://b"}}},
}


def found_in(body: dict[str, Any], **more: Any) -> list[dangers.Danger]:
    return dangers.find(
        model(body, **more),
        own=("/srv/shop/releases", "/srv/shop/.lockstep"),
        resolve=lambda path: "/etc/shadow" if path == "/srv/link" else path,
    )


@pytest.mark.parametrize("key", DANGEROUS)
def test_fault_65_what_takes_over_the_host_is_found(key: str) -> None:
    """A service asks for /, /etc, docker.sock, privileged, the host's pid and the like: each is
    found, named with its service and place, and allowed by nothing but its own key."""
    (found,) = found_in(DANGEROUS[key])
    expected = key if key != "container:other" else "container:other:ro"
    assert found.service == "web"
    assert found.key == expected
    assert found.place in DANGEROUS[key]
    assert dangers.refused([found], ["web.other", "api." + expected]) == [found]
    assert dangers.refused([found], [f"web.{expected}"]) == []


@pytest.mark.parametrize("what", HARMLESS)
def test_what_is_harmless_is_left_alone(what: str) -> None:
    assert found_in(HARMLESS[what]) == []


def test_fault_65_a_volume_that_is_a_folder_of_the_host_is_found() -> None:
    """A named volume with `driver_opts` that make it /etc: found like the bind mount that it is."""
    options = {"type": "none", "o": "bind", "device": "/etc"}
    (found,) = found_in(
        {"volumes": [{"type": "volume", "source": "data", "target": "/x"}]},
        volumes={"data": {"name": "d", "driver_opts": options}},
    )
    assert found.key == "bind:/etc"


def test_fault_65_a_secret_that_is_a_file_of_the_host_is_found() -> None:
    """A top-level secret from /etc/shadow, a config from the socket's folder: found."""
    found = found_in(
        {"secrets": [{"source": "s"}], "configs": ["c"]},
        secrets={"s": {"file": "/etc/shadow"}},
        configs={"c": {"file": "/run/lock"}},
    )
    assert {d.key for d in found} == {"bind:/etc/shadow", "bind:/run/lock"}


def test_a_dollar_in_a_path_is_what_compose_means() -> None:
    assert found_in(bind("/srv/$$etc")) == []
