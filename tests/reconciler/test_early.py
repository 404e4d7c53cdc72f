"""Which services may run beside the old world."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.docker import ContainerDetails, Published
from reconciler.plan import Action, DatasetPlan
from reconciler.records.release import Release
from reconciler.switching.early import early, independent
from reconciler.world.hostworld import HostWorld, Service


def service(
    name: str,
    *volumes: str,
    needs: tuple[str, ...] = (),
    port: int | None = None,
    networks: tuple[str, ...] | None = None,
    mode: str = "",
    read_only: bool = False,
    world: str = "new",
) -> Service:
    targets = {f"/mnt/{volume}": volume for volume in volumes}
    container = ContainerDetails(
        id=f"{world}-{name}",
        name=name,
        project=world,
        service=name,
        state="created",
        exit_code=0,
        oom_killed=False,
        error="",
        pid=0,
        started="",
        finished="",
        image="",
        image_id="",
        labels={},
        health=None,
        unhealthy=False,
        stop_grace=10,
        init=False,
        restart_policy="no",
        ports=(Published("", port, "tcp", port),) if port else (),
        network_mode=mode,
        networks=frozenset(networks if networks is not None else (f"{world}_default",)),
        addresses={},
        env_names=(),
        volumes=targets,
        read_only=frozenset(targets) if read_only else frozenset(),
    )
    return Service(
        name,
        (container,),
        dict.fromkeys(needs, "service_healthy"),
        gates=(),
        job=False,
        after_commit=False,
        restart_policy="no",
    )


def world(*services: Service) -> HostWorld:
    return HostWorld("w", {s.name: s for s in services})


OLD = world(
    service("db", "db_g1", world="old"),
    service("web", "files_g1", needs=("db",), port=80, world="old"),
)


@pytest.mark.parametrize(
    ("coming", "unsettled", "expected"),
    [
        ([service("db", "db_g2")], [], {"db"}),
        ([service("db", "db_g2")], ["db_g2"], set()),
        ([service("db", "db_g1")], [], set()),
        ([service("db", "db_g2", "etc", read_only=True)], [], set()),
        ([service("db", "db_g2"), service("web", needs=("db",), port=80)], [], {"db", "web"}),
        ([service("db", "db_g2"), service("web", needs=("db",))], ["db_g2"], set()),
        ([service("db", "db_g2"), service("idle")], [], {"db"}),
        ([service("db", "db_g2", networks=("old_default",))], [], set()),
        ([service("db", "db_g2", mode="host", networks=())], [], set()),
    ],
    ids=[
        "own data",
        "data not there yet",
        "the old world's data",
        "nothing of its own to write",
        "needs one that counts",
        "needs one that does not",
        "nothing of its own and nothing it waits for",
        "a network in common",
        "the host's network",
    ],
)
def test_independent(coming: list[Service], unsettled: list[str], expected: set[str]) -> None:
    assert independent(world(*coming), OLD, unsettled) == expected


def record(**services: Any) -> Release:
    return Release(
        name="prod-001",
        parent=None,
        created="",
        model={"name": "shop", "services": services},
        images={},
        datasets={},
    )


def planned(action: Action, generation: str) -> DatasetPlan:
    return DatasetPlan(generation, action, generation, 2, new=False)


def test_early_leaves_out_ports_and_all_that_need_them() -> None:
    coming = world(
        service("db", "db_g2"),
        service("web", needs=("db",), port=80),
        service("mailer", "mails_g2", needs=("web",)),
        service("sweeper", "dust_g2", needs=("mailer",)),
    )
    model = record(db={}, web={"ports": [{"published": "80", "target": 80}]}, mailer={}, sweeper={})
    attached = [planned(Action.ATTACH, f"{d}_g2") for d in ("db", "mails", "dust")]
    assert early(coming, OLD, attached, model) == {"db"}
    forked = [planned(Action.FORK, "db_g2"), planned(Action.RESTORE, "mails_g2")]
    assert early(coming, OLD, forked, model) == set()


def test_a_shared_dataset_is_not_touched_before_the_old_world_stops() -> None:
    coming = world(service("db", "db_g2", "common"))
    plans = [planned(Action.ATTACH, "db_g2"), planned(Action.LEAVE, "common")]
    assert early(coming, OLD, plans, record(db={})) == set()
