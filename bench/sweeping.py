"""Removal of what a run made on this host, also of one that was killed; never of anybody else's.

Everything on the host bears the mark of the bench's folder, in its label or in its name.
"""

from __future__ import annotations

from pathlib import Path

from bench import daemons, grounds
from bench.daemons import Daemon
from bench.images import label, mark

RUN = Path("/run")
DISKS = ("disk", "stop")


def sweep(folder: Path) -> None:
    """Remove what runs in this folder have left: containers, networks, volumes, images, daemons,
    mounts and scratch folders. The cache and the results stay."""
    owner = mark(folder)
    for run in RUN.glob(f"{owner}-*"):
        daemons.end(run)
    sweep_docker(Daemon(owner))
    for name in (grounds.IMAGE, grounds.OWN):
        for kind in grounds.MAKE:
            grounds.release(folder / f"{name}.{kind}", folder / f"{name}.{kind}.img")
    for name in DISKS:
        grounds.clear(folder / name)


def sweep_docker(daemon: Daemon, project: str | None = None) -> None:
    """Remove from a daemon what its owner has made there, or what one project of that has."""
    docker, name = daemon.docker, project or daemon.owner
    wanted = f"label={label(daemon.owner)}"
    listed = docker("ps", "--all", "--filter", wanted, "--format", "{{.ID}} {{.Names}}")
    containers = [line.split() for line in listed.splitlines()]
    # An ingress, and what holds its image, are no services of the project: without its label.
    for of_stack in ("lockstep.ingress", "lockstep.holds"):
        wanted = f"label={of_stack}"
        listed = docker("ps", "--all", "--filter", wanted, "--format", "{{.ID}} {{.Names}}")
        more = [line.split() for line in listed.splitlines()]
        containers += [c for c in more if c[1].startswith(f"{name}-") and c not in containers]
    if found := [c[0] for c in containers if project is None or c[1].startswith(f"{name}-")]:
        docker("rm", "--force", "--volumes", *found)
    for kind, form in (
        ("network", "{{.Name}}"),
        ("volume", "{{.Name}}"),
        ("image", "{{.Repository}}:{{.Tag}}"),
    ):
        there = docker(kind, "ls", "--format", form).split()
        if ours := [
            text for text in there if text.startswith((f"{name}-", f"{name}_", f"0-{name}-"))
        ]:
            docker(kind, "rm", *ours)
