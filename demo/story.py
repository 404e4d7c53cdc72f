"""`make demo`: a small shop goes through five releases, one failure and a rollback, under load.

Every step is the command a user would type, with its real output; what the text claims is checked,
and the demo fails if it is not so. It takes the host's port SHOP_PORT (8080).
"""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import Any

from demo import host
from demo.accounting import (
    AccountingError,
    Attempt,
    acknowledged,
    between,
    downtime,
    missing,
    read_record,
    tokens_in_container,
    tokens_in_volume,
)
from demo.stage import ROOT, Stage, StoryFailed
from demo.writer import WriterFailed, running

SHOP = ROOT / "demo" / "shop"
URL = f"http://127.0.0.1:{os.environ.get('SHOP_PORT', '8080')}"
RECORD = ROOT / ".demo" / "orders.jsonl"
POSTGRES = "lockstep-base/postgres:15"
SHOWN = 3


def main() -> int:
    stage = Stage()
    try:
        prepare(stage)
        with running(URL, RECORD):
            story = Story(stage)
            story.tell()
        story.sum_up()
    except (StoryFailed, host.NotTheDemo, AccountingError, WriterFailed) as error:
        stage.fail(str(error))
        return 1
    except KeyboardInterrupt:
        stage.fail("interrupted; `make demo` starts again from the beginning")
        return 130
    return 0


def prepare(stage: Stage) -> None:
    stage.say("This is the story of a small shop: web, worker, Postgres, Redis and uploaded files.")
    removed = host.remove_all(ROOT)
    if removed:
        stage.say(f"Removed what an earlier demo left: {', '.join(removed)}.")
    stage.scene(
        "The shop runs under plain compose, as it always did",
        "From now on a writer posts an order every 20 ms, over a new connection each, and notes "
        "every order that was acknowledged. Nothing it was promised may get lost.",
    )
    edit_version(stage, "v1")
    stage.run("docker compose -p shop up -d --build", cwd=SHOP, quiet=True)
    wait_for("v1")
    stage.run("docker compose -p shop ps --format 'table {{.Service}}\t{{.Status}}'", cwd=SHOP)
    RECORD.parent.mkdir()


@dataclass
class Story:
    stage: Stage
    rows: list[dict[str, object]] = field(default_factory=list)
    found_elsewhere: set[str] = field(default_factory=set)
    """Tokens seen in the data of worlds that were left, when they were left."""

    def tell(self) -> None:
        time.sleep(2)
        self.adopt()
        self.forward()
        self.fail()
        self.look_at_a_rollback()
        self.roll_back()
        self.undo()
        self.go_on()

    def adopt(self) -> None:
        self.stage.scene(
            "Lockstep takes the running shop over, as it stands",
            "The stack is described by Pulumi.yaml, Pulumi.prod.yaml and a three-line __main__.py. "
            "The database password is a secret of the stack. The first release has the sources "
            "that run already; the compose project becomes the world it starts from.",
        )
        self.stage.run("lockstep init --yes")
        for key in ("release", "restore", "retry"):
            self.stage.unseen("lockstep", "config", "rm", key)  # an earlier demo's
        self.stage.run(
            "sed -n 's/^DB_PASSWORD=//p' demo/shop/.env"
            " | lockstep config set --secret secrets.DB_PASSWORD"
        )
        self.release("v1", "the shop as it was", "adopt")

    def forward(self) -> None:
        self.stage.scene(
            "prod-002: a new version that changes the database",
            "Its migration adds the tax to every order. It runs on a fork of the data; the old "
            "world, with its data, stays as it is.",
        )
        before = host.live_database()
        self.release("v2", "every order has its tax", "forward")
        self.stage.check(
            f"the data of {before.world} still has no tax: the migration ran on a fork",
            host.live_database().volume != before.volume,
        )
        self.stage.check("the configuration is that of v2", "include tax" in get("/config"))

    def fail(self) -> None:
        self.stage.scene(
            "prod-003 fails its proof",
            "Its migration makes every amount 0. It takes orders all the same, and acknowledges "
            "them; but its health check looks at the books and never turns green.",
        )
        before = host.live_database()
        edit_version(self.stage, "v3")
        self.stage.run('lockstep new "amounts in thousands of euros"')
        self.move("prod-003 fails", "lockstep up --yes", fails=True)
        self.stage.say("Nobody had to do anything: image, configuration and data are back.")
        wait_for("v2")
        self.stage.check("v2 answers", get_json("/version") == {"version": "v2"})
        self.stage.check("the configuration is that of v2", "include tax" in get("/config"))
        self.stage.check("the data is that of before", host.live_database().volume == before.volume)

        attempts = read_record(RECORD)
        stored = tokens_in_container(host.live_database().container)
        of_old = [a for a in acknowledged(attempts) if a.version != "v3"]
        of_failed = acknowledged(attempts, "v3")
        self.stage.check(
            f"all {len(of_old)} orders that v1 and v2 acknowledged are in it",
            not missing(of_old, stored),
        )
        failed = host.databases()["shop-prod-003"]
        in_failed = tokens_in_volume(failed.volume, POSTGRES)
        self.found_elsewhere |= in_failed
        self.stage.check(
            f"the {len(of_failed)} orders that the failed world acknowledged are kept in it",
            not failed.running and not missing(of_failed, in_failed),
        )
        for attempt in of_failed[:SHOWN]:
            self.stage.say(f"    order {attempt.order_id}: {attempt.item}, {attempt.amount} cents")
        if len(of_failed) > SHOWN:
            self.stage.say(f"    and {len(of_failed) - SHOWN} more")
        self.stage.say("The release is quarantined: it is not tried again by accident.")
        self.stage.run("lockstep up --yes", fails=True)
        self.stage.run("lockstep list")

    def look_at_a_rollback(self) -> None:
        self.stage.scene(
            "What would a rollback to prod-001 cost?",
            "The preview says which data would come back, how old it is, and how many orders "
            "would be set aside. It changes nothing.",
        )
        self.stage.run("lockstep config set release prod-001")
        self.stage.run("lockstep preview")
        self.stage.check("v2 is still live", get_json("/version") == {"version": "v2"})

    def roll_back(self) -> None:
        self.stage.scene("The rollback: prod-001 with its own data")
        self.move("back to prod-001", "lockstep rollback prod-001 --yes")
        self.stage.check("v1 answers", get_json("/version") == {"version": "v1"})
        self.stage.check("the configuration is that of v1", "tax" not in get("/config"))

    def undo(self) -> None:
        self.stage.scene(
            "The undo of the rollback",
            "The world that was left is still there, and so is every order in it.",
        )
        self.move("undo", "lockstep undo --yes")
        self.stage.check("v2 answers", get_json("/version") == {"version": "v2"})

    def go_on(self) -> None:
        self.stage.scene(
            "prod-004 and prod-005, and the window",
            "The last three releases are kept. With prod-005 the first leaves: its record, "
            "images, volumes and snapshots, as the preview says.",
        )
        self.release("v4", "who ordered", "forward")
        self.release("v5", "parcels leave daily", "forward", preview=True)
        listed = json.loads(self.stage.run("lockstep list --json", quiet=True))
        status = {entry["release"]: entry["status"] for entry in listed["releases"]}
        self.stage.check("prod-005 is live", listed["live"] == "prod-005", listed["live"])
        self.stage.check("prod-001 has left the window", status["prod-001"] == "pruned", status)
        self.stage.scene("What there is to read afterwards")
        self.stage.run("lockstep list")
        self.stage.run("lockstep info prod-002")
        self.stage.run("lockstep log")

    def sum_up(self) -> None:
        attempts = acknowledged(read_record(RECORD))
        stored = tokens_in_container(host.live_database().container)
        aside = missing(attempts, stored)
        lost = missing(attempts, stored | self.found_elsewhere)
        self.stage.scene("Measured from outside")
        self.stage.table("Every step under load, an order every 20 ms", self.rows)
        self.stage.say(
            f"{len(attempts)} orders were acknowledged. {len(attempts) - len(aside)} are in the "
            f"live world; {len(aside)} were set aside with the worlds that took them (the failed "
            f"prod-003, and prod-001 between rollback and undo). {len(lost)} were lost."
        )
        self.stage.check("no acknowledged order was lost", not lost, len(lost))
        self.stage.say(
            "The shop goes on running as prod-005. To go on: `lockstep config set release prod-004 "
            "&& lockstep preview && lockstep up`. `make demo` starts again from the beginning."
        )

    def release(self, version: str, description: str, move: str, *, preview: bool = False) -> None:
        """Edit the sources, record a release of them, and go there."""
        edit_version(self.stage, version)
        self.stage.run(f'lockstep new "{description}"')
        if preview:
            self.stage.run("lockstep preview --impact-only")
        self.move(f"{move} to {version}", "lockstep up --yes")
        self.stage.check(f"{version} answers", get_json("/version") == {"version": version})

    def move(self, what: str, command: str, *, fails: bool = False) -> None:
        """Run a command that switches, and measure it from outside."""
        left = host.live_database()
        since = time.time()
        self.stage.run(command, fails=fails)
        until = time.time()
        time.sleep(1)
        during = between(read_record(RECORD), since - 0.5, until + 0.5)
        self.rows.append(self.measure(what, left, during))

    def measure(self, what: str, left: host.Database, during: list[Attempt]) -> dict[str, object]:
        live = host.live_database()
        attempts = read_record(RECORD)
        if left.world != live.world:
            self.found_elsewhere |= tokens_in_volume(left.volume, POSTGRES)
        stored = tokens_in_container(live.container)
        aside = [a for a in missing(attempts, stored) if a.token in self.found_elsewhere]
        seconds = downtime(during)
        self.stage.check(
            f"{what}: {seconds:.1f} s without an answer, measured from outside", seconds < 60
        )
        return {
            "step": what,
            "live world": live.world,
            "downtime": f"{seconds:.2f} s",
            "refused": len(during) - len(acknowledged(during)),
            "acknowledged so far": len(acknowledged(attempts)),
            "set aside": len(aside),
        }


def edit_version(stage: Stage, version: str) -> None:
    """What a developer does who goes on to the next version of the sources."""
    stage.run(f"sed -i 's/^APP_VERSION=.*/APP_VERSION={version}/' demo/shop/.env")


def wait_for(version: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if get_json("/version") == {"version": version}:
                return
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise StoryFailed(f"{version} did not answer at {URL} within {seconds:.0f} s")
        time.sleep(0.1)


def get(path: str) -> str:
    """Raises StoryFailed when the shop does not answer."""
    try:
        with urllib.request.urlopen(URL + path, timeout=5) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        raise StoryFailed(f"{URL}{path} answered {error.code}") from None


def get_json(path: str) -> Any:
    return json.loads(get(path))


if __name__ == "__main__":
    sys.exit(main())
