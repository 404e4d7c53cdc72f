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
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from demo import host
from demo.accounting import (
    AccountingError,
    acknowledged,
    between,
    downtime,
    missing,
    read_record,
    tokens_in_container,
    tokens_in_snapshot,
    tokens_in_volume,
)
from demo.excerpt import nothing, of_engine, of_new
from demo.stage import ROOT, Stage, StoryFailed
from demo.writer import WriterFailed, running
from snapshots.store import Store

SHOP = ROOT / "demo" / "shop"
URL = f"http://127.0.0.1:{os.environ.get('SHOP_PORT', '8080')}"
RECORD = ROOT / ".demo" / "orders.jsonl"
RELEASES = ROOT / "releases"
POSTGRES = "lockstep-base/postgres:15"
SHOWN = 3
REVERTED, REFUSED = 4, 3
"""Exit codes of the command (docs/exit-codes.md)."""


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
    stage.say(
        "This is the story of a small shop: web, worker, Postgres, Redis and uploaded files. "
        "Each command is typed as you would type it; `…` marks where long output is left out, "
        "and ✓ what was checked just now. If one check fails, so does the demo."
    )
    removed = host.remove_all(ROOT)
    if removed:
        stage.say(f"Removed what an earlier demo left: {', '.join(removed)}.")
    stage.scene(
        "The shop runs under plain compose, as it always did",
        "From now on a writer posts an order every 20 ms, over a new connection each, and notes "
        "every order that was acknowledged. Nothing it was promised may get lost.",
    )
    edit_version(stage, "v1")
    stage.run("docker compose -p shop up -d --build", nothing, cwd=SHOP)
    wait_for("v1")
    columns = "{{.Service}}\\t{{.Image}}\\t{{.Status}}"
    stage.run(f"docker compose -p shop ps --format 'table {columns}'", cwd=SHOP)
    RECORD.parent.mkdir()


@dataclass(frozen=True)
class Step:
    """One switch, as it was seen from outside."""

    what: str
    live: str
    downtime: float
    """Seconds without an answer."""
    refused: int
    """Orders that got no answer, or an error; the customer knows."""
    aside: dict[str, int]
    """World -> acknowledged orders that only this world has."""
    lost: int
    """Acknowledged orders that are nowhere."""


@dataclass
class Story:
    stage: Stage
    steps: list[Step] = field(default_factory=list)
    found_in: dict[str, str] = field(default_factory=dict)
    """Token -> the world that it was seen in when this world was left."""
    of_first: set[str] = field(default_factory=set)
    """The generations of prod-001."""

    def tell(self) -> None:
        time.sleep(1)
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
            "`init` adds what is missing on this host: the passphrase, the state, the database "
            "password as a secret of the stack.",
        )
        self.stage.run("lockstep init --yes")
        self.stage.say(
            "The first release has the sources that run already; the compose project becomes the "
            "world it starts from, prod-000. To go back to it is to start it."
        )
        plain = host.live_database()
        self.release("v1", "the shop as it was", "prod-001, adopted")
        there = host.databases()
        self.stage.check(
            "the compose project is stopped, and kept with its volumes as they were",
            plain.world in there and not there[plain.world].running,
        )

    def forward(self) -> None:
        self.stage.scene(
            "prod-002: a new version that changes the database",
            "Its migration adds the tax to every order. It runs on a fork of the data; the old "
            "world, with its data, stays as it is.",
        )
        before = host.live_database()
        edit_version(self.stage, "v2")
        self.release("v2", "every order has its tax", "prod-002, forward")
        now = host.live_database()
        self.stage.check(
            f"the migration ran on a fork: {now.volume} has it, {before.volume} is untouched",
            now.volume != before.volume and host.databases()[before.world] == stopped(before),
        )
        self.stage.check("the configuration is that of v2", "include tax" in get("/config"))

    def fail(self) -> None:
        self.stage.scene(
            "prod-003 fails its proof",
            "Its migration makes every amount 0. It takes orders all the same, and acknowledges "
            "them; but its health check looks at the books and never turns green. Nobody has to "
            "do anything now.",
        )
        before = host.live_database()
        edit_version(self.stage, "v3")
        self.stage.run('lockstep new "amounts in thousands of euros"', of_new())
        self.move(
            "prod-003, fails: all back", "lockstep up --yes", fails=REVERTED, failed="shop-prod-003"
        )
        wait_for("v2")
        self.stage.check("v2 answers again", get_json("/version") == {"version": "v2"})
        self.stage.check("the configuration is that of v2", "include tax" in get("/config"))
        self.stage.check(
            f"the data is that of before: {before.volume}", host.live_database() == before
        )
        self.account_for_the_failed()
        self.stage.say("The release is quarantined: it is not tried again by accident.")
        said = self.stage.run("lockstep up --yes", of_engine(), fails=REFUSED)
        self.stage.check("refused, and it says why", "prod-003 is quarantined" in said)
        self.stage.run("lockstep list")

    def account_for_the_failed(self) -> None:
        """Every order of v1 and v2 is in the live world, every one of v3 in the failed world."""
        attempts = read_record(RECORD)
        stored = tokens_in_container(host.live_database().container)
        of_old = [a for a in acknowledged(attempts) if a.version != "v3"]
        self.stage.check(
            f"all {len(of_old)} orders that v1 and v2 acknowledged are in it",
            not missing(of_old, stored),
            len(missing(of_old, stored)),
        )
        of_failed = acknowledged(attempts, "v3")
        failed = host.databases()["shop-prod-003"]
        in_failed = [a for a in of_failed if self.found_in.get(a.token) == failed.world]
        self.stage.check(
            f"the {len(of_failed)} orders that v3 acknowledged meanwhile are kept in the failed "
            f"world: {failed.volume}",
            bool(of_failed) and not failed.running and in_failed == of_failed,
        )
        shown = [f"order {a.order_id}: {a.item} for {a.amount} cents" for a in of_failed[:SHOWN]]
        self.stage.items([*shown, f"… and {len(of_failed) - SHOWN} more"])

    def look_at_a_rollback(self) -> None:
        self.stage.scene(
            "What would a rollback to prod-001 cost?",
            "The preview says which data would come back, how old it is, and how many orders "
            "would be set aside. It changes nothing.",
        )
        self.stage.run("lockstep config set release prod-001")
        self.stage.run("lockstep preview")
        planned = json.loads(self.stage.ask("lockstep", "preview", "--json"))
        aside = planned["datasets"]["db-data"]["set_aside"]
        orders = next((n for table, n in aside.items() if table.endswith("orders")), 0)
        self.stage.check("it counts the orders that would be set aside", orders > 0, aside)
        self.stage.check("v2 is still live", get_json("/version") == {"version": "v2"})

    def roll_back(self) -> None:
        self.stage.scene(
            "The rollback: prod-001 with its own data",
            "Its data is attached again, not copied. Postgres and Redis start before the live "
            "world stops, since nothing in them depends on the stop.",
        )
        self.move("rollback to prod-001", "lockstep rollback prod-001 --yes")
        self.of_first = host.volumes_of("shop-prod-001")
        self.stage.check("v1 answers", get_json("/version") == {"version": "v1"})
        self.stage.check("the configuration is that of v1", "tax" not in get("/config"))

    def undo(self) -> None:
        self.stage.scene(
            "The undo of the rollback",
            "The world that was left is still there, and so is every order in it. What prod-001 "
            "took since is set aside in its turn.",
        )
        planned = self.move("undo: prod-002 again", "lockstep undo --yes")
        self.stage.check("it said that orders would be set aside", "shop.public.orders" in planned)
        self.stage.check("v2 answers", get_json("/version") == {"version": "v2"})
        of_new = acknowledged(read_record(RECORD), "v2")
        stored = tokens_in_container(host.live_database().container)
        self.stage.check(
            f"all {len(of_new)} orders that v2 acknowledged, before and since, are in it",
            not missing(of_new, stored),
            len(missing(of_new, stored)),
        )

    def go_on(self) -> None:
        self.stage.scene(
            "prod-004 and prod-005, and the window",
            "The last three releases that were live are kept. With prod-004 the adopted project "
            "leaves the window, with prod-005 prod-001: record, images, volumes, and each snapshot "
            "that no kept release came from.",
        )
        edit_version(self.stage, "v4")
        self.release("v4", "who ordered", "prod-004, forward")
        edit_version(self.stage, "v5")
        self.release("v5", "parcels leave daily", "prod-005, forward", preview=True)
        listed = json.loads(self.stage.ask("lockstep", "list", "--json"))
        status = {entry["release"]: entry["status"] for entry in listed["releases"]}
        self.stage.check("prod-005 is live", listed["live"] == "prod-005", listed["live"])
        self.stage.check("prod-001 has left the window", status["prod-001"] == "pruned", status)
        left = host.traces("prod-001", "shop-prod-001", self.of_first, RELEASES)
        self.stage.check("no record, image, container or volume of it is there", not left, left)
        left = self.snapshots_of("prod-000")
        self.stage.check("no snapshot of prod-000 is in the store any more", not left, left)
        self.stage.scene("What there is to read afterwards")
        self.stage.run("lockstep list")
        self.stage.run("lockstep info prod-002")
        self.stage.run("lockstep log")

    def snapshots_of(self, release: str) -> list[str]:
        """The snapshots of what a release left that are in the store now."""
        info = json.loads(self.stage.ask("lockstep", "info", release, "--json"))
        left = {s for departure in info["departures"] for s in departure["snapshots"].values()}
        return sorted(left & set(Store.open(RELEASES / "store").ids()))

    def sum_up(self) -> None:
        entries = json.loads(self.stage.ask("lockstep", "log", "--json"))["entries"][::-1]
        if len(entries) != len(self.steps):
            raise StoryFailed(f"{len(self.steps)} switches were made, the log has {len(entries)}")
        self.stage.scene("Measured from outside, an order every 20 ms")
        self.stage.table(
            [
                {
                    "step": step.what,
                    "no answer": f"{step.downtime:.2f} s",
                    "lockstep log": f"{entry['downtime_seconds']:.2f} s",
                    "not taken": step.refused,
                    "set aside": named(step.aside, "\n"),
                    "lost": step.lost,
                }
                for step, entry in zip(self.steps, entries, strict=True)
            ],
        )
        self.stage.say(
            "no answer: from the last order that was acknowledged before to the first one after. "
            "The log counts until the release is proved; v3 answered in between, unproved. "
            "not taken: orders that were not acknowledged, so that the customer knows. "
            "set aside: acknowledged, and not in the live world but in the one that is named."
        )
        self.account_for_all()
        self.say_what_is_left()

    def account_for_all(self) -> None:
        attempts = acknowledged(read_record(RECORD))
        stored = tokens_in_container(host.live_database().container)
        aside = missing(attempts, stored)
        lost = [attempt for attempt in aside if attempt.token not in self.found_in]
        worlds = named(Counter(self.found_in[a.token] for a in aside if a not in lost))
        self.stage.check(
            f"of {len(attempts)} acknowledged orders {len(attempts) - len(aside)} are in the live "
            f"world, {worlds} are set aside, "
            f"{len(lost)} are lost",
            not lost,
        )
        for release in ("prod-003", "prod-001"):
            kept = [a for a in aside if self.found_in.get(a.token) == f"shop-{release}"]
            info = json.loads(self.stage.ask("lockstep", "info", release, "--json"))
            in_store = tokens_in_snapshot(RELEASES / "store", snapshot_of(info), POSTGRES)
            self.stage.check(
                f"the {len(kept)} that {release} took were just read back from the store",
                bool(kept) and not missing(kept, in_store),
                len(missing(kept, in_store)),
            )

    def say_what_is_left(self) -> None:
        self.stage.scene("Go on by yourself")
        self.stage.say(f"The shop goes on running as prod-005, at {URL}. For example:")
        self.stage.items(
            [
                "export PATH=$PWD/.venv/bin:$PATH",
                "lockstep config set release prod-004",
                "lockstep preview",
                "lockstep up",
            ]
        )
        self.stage.say(
            "Pulumi.prod.yaml has changed: the release, and the password encrypted. In a project "
            "of your own that is what you commit. The official CLI goes on in the same stack: "
            "`export PULUMI_CONFIG_PASSPHRASE_FILE=.lockstep/passphrase`, then `pulumi config set "
            "release prod-004 && pulumi up`."
        )
        self.stage.say(
            "On this host are the worlds shop-prod-004 and shop-prod-005, the stopped compose "
            "project shop with its volumes, images shop-*, and in this folder releases/, .pulumi/, "
            ".demo/ and .lockstep/. `make demo` removes them and starts from the beginning; "
            "`python3 -m demo.host` only removes them, and puts Pulumi.prod.yaml back."
        )

    def release(self, version: str, description: str, what: str, *, preview: bool = False) -> None:
        """Record a release of the sources, and go there."""
        self.stage.run(f'lockstep new "{description}"', of_new())
        if preview:
            self.stage.run("lockstep preview --impact-only")
        self.move(what, "lockstep up --yes")
        self.stage.check(f"{version} answers", get_json("/version") == {"version": version})

    def move(self, what: str, command: str, *, fails: int = 0, failed: str = "") -> str:
        """Run a command that switches, and measure it from outside; returns what it said.
        `failed`: the world that is expected to take orders in vain."""
        left = host.live_database()
        since = time.time()
        said = self.stage.run(command, of_engine(), fails=fails)
        time.sleep(1)  # so that the first answers afterwards are on record
        step = self.measure(what, failed or left.world, since)
        self.steps.append(step)
        self.stage.check(
            f"{step.downtime:.2f} s without an answer, measured from outside", step.downtime < 60
        )
        return said

    def measure(self, what: str, left: str, since: float) -> Step:
        live = host.live_database()
        attempts = read_record(RECORD)
        during = between(attempts, since - 0.5, time.time())
        # The record is read before the database: what is in it must be stored by then.
        stored = tokens_in_container(live.container)
        elsewhere = missing(attempts, stored)
        if any(attempt.token not in self.found_in for attempt in elsewhere):
            in_left = tokens_in_volume(host.databases()[left].volume, POSTGRES)
            for token in in_left - stored:
                self.found_in.setdefault(token, left)
        return Step(
            what=what,
            live=live.world,
            downtime=downtime(during),
            refused=len(during) - len(acknowledged(during)),
            aside=Counter(self.found_in[a.token] for a in elsewhere if a.token in self.found_in),
            lost=sum(attempt.token not in self.found_in for attempt in elsewhere),
        )


def stopped(database: host.Database) -> host.Database:
    return host.Database(database.world, database.container, False, database.volume)


def named(aside: dict[str, int], joint: str = " and ") -> str:
    """`900 in prod-003 and 121 in prod-001`."""
    short = {world: world.removeprefix(f"{host.PROJECT}-") for world in aside}
    return joint.join(f"{count} in {short[world]}" for world, count in aside.items()) or "0"


def snapshot_of(info: dict[str, Any]) -> str:
    """The snapshot of what a release left in its database, by its `info` document."""
    for departure in reversed(info["departures"]):
        if "db-data" in departure["snapshots"]:
            return str(departure["snapshots"]["db-data"])
    raise StoryFailed(f"nothing of {info['release']['name']} is in the store")


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
        with urllib.request.urlopen(URL + path, timeout=20) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        raise StoryFailed(f"{URL}{path} answered {error.code}") from None


def get_json(path: str) -> Any:
    return json.loads(get(path))


if __name__ == "__main__":
    sys.exit(main())
