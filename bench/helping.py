"""Chapter `helper`: the same work on the same data, by this process itself and in the helper
container that users without root have. A container's start counts: each step has a new one."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.images import label
from bench.results import Results, Series
from bench.shares import Share
from bench.subjects import Subject
from reconciler.docker import Docker, connect
from reconciler.reaching import helper, reach
from reconciler.world import places
from snapshots.store import Store

CHAPTER = "helper"
FORK, CAPTURE, RESTORE = "seconds fork", "seconds capture", "seconds restore"
STEPS = (FORK, CAPTURE, RESTORE)
WHO = {"direct": "direct", "helper": "in the helper"}


@dataclass
class Helping:
    """Measures both ways after each other, in each round."""

    subject: Subject
    results: Results
    work: Path
    owner: str
    say: Callable[[str], None]

    def carry_out(self, rounds: int, share: Share) -> None:
        state = self.subject.state(1)
        share.start()
        name, value = label(self.owner).split("=", 1)
        labels, docker = {name: value}, connect("direct")
        source = f"{self.owner}-helper-source"
        docker.create_volume(source, labels)
        try:
            subprocess.run(
                ["cp", "-a", f"{state}/.", str(places.place(docker, source))], check=True
            )
            for number in range(1, rounds + 1):
                if self.results.has(CHAPTER, self.subject.name, number):
                    continue
                if number > 1 and not share.lasts():
                    return
                self.say(f"through the helper container, round {number}")
                with self.results.round(CHAPTER, self.subject.name, number):
                    for way in WHO:
                        self._round(way, source, labels)
        finally:
            docker.remove_volume(source, labels=labels)

    def _round(self, way: str, source: str, labels: dict[str, str]) -> None:
        docker, target = Docker(reach=way), f"{self.owner}-helper-target"
        folder = self.work / "helper"
        reach.forget()
        try:
            here = places.place(docker, source)
            store = Store.open(folder / "store")
            there = places.place(docker, docker.create_volume(target, labels).name)
            fork = reach.Fork(here, there, index=folder / "index")
            self._timed(way, FORK, fork.first_pass)
            helper.close()
            docker.remove_volume(target, labels=labels)
            docker.create_volume(target, labels)
            self._timed(way, CAPTURE, lambda: reach.capture(here, store, dataset="bench"))
            (snapshot,) = store.ids()
            self._timed(way, RESTORE, lambda: reach.restore(store, snapshot, there))
        finally:
            helper.close()
            reach.forget()
            docker.remove_volume(target, labels=labels)
            shutil.rmtree(folder, ignore_errors=True)

    def _timed(self, way: str, what: str, act: Callable[[], object]) -> None:
        began = time.monotonic()
        act()
        took = time.monotonic() - began
        self.results.add(Series(CHAPTER, self.subject.name, WHO[way], what), took)
