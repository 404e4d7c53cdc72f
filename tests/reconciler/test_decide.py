"""decide, walked through histories on a host in memory, and case by case."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from reconciler.config import Settings, Wish
from reconciler.decide import decide, rollback_target, undo_target
from reconciler.facts import Disk, PortHolder, Snapshot
from reconciler.plan import Action, Move
from reconciler.records.ledger import Recovered, Reverted, WorldRemoved
from reconciler.records.release import Strategy
from tests.reconciler import hostmodel
from tests.reconciler.hostmodel import AT, Host, with_wish


def going(host: Host, release: str) -> Move:
    host.release = release
    return host.up().move


def three_releases(window: int = 3) -> Host:
    host = Host(window)
    for _ in range(3):
        host.new()
        host.up()
        host.write()
    return host


def test_the_first_release_starts_empty() -> None:
    host = Host()
    host.new()
    plan = host.up()
    assert plan.move is Move.FIRST
    assert {d.action for d in plan.datasets.values()} == {Action.CREATE}
    assert host.state.live == "shop-prod-001"


def test_a_new_release_gets_a_fork_of_the_live_data() -> None:
    host = three_releases()
    before = host.live_contents()
    host.new()
    plan = host.up()
    assert plan.move is Move.FORWARD
    assert plan.datasets["db"].action is Action.FORK
    assert plan.datasets["db"].source == "shop-prod_db_g3"
    assert host.live_contents()["db"][:-1] == before["db"]


def test_back_to_the_previous_release_attaches_and_further_back_restores() -> None:
    host = three_releases()
    plans = []
    for release in ("prod-002", "prod-001"):
        host.release = release
        plans.append(host.up())
    assert [p.move for p in plans] == [Move.BACK, Move.BACK]
    assert plans[0].datasets["db"].action is Action.ATTACH
    assert plans[0].to_world == "shop-prod-002"
    assert plans[1].datasets["db"].action is Action.RESTORE
    assert plans[1].to_world == "shop-prod-001_2"


@pytest.mark.parametrize("target", ["prod-001", "prod-002"])
def test_what_would_be_set_aside_is_counted_back_and_forth(target: str) -> None:
    host = three_releases()
    for release in (target, "prod-003", target):
        host.release = release
        planned = host.plan().datasets["db"]
        only_there = set(host.live_contents()["db"]) - set(host.left[release]["db"])
        assert planned.set_aside == {"tokens": len(only_there)}
        assert only_there
        host.up()
        host.write()


def test_the_sequence_1_2_3_rollback_rollback_undo_new() -> None:
    host = three_releases()
    assert rollback_target(host.state, host.records) == "prod-002"
    going(host, "prod-002")
    assert rollback_target(host.state, host.records) == "prod-001"
    two = host.live_contents()
    going(host, "prod-001")
    assert rollback_target(host.state, host.records) is None
    assert undo_target(host.state) == ("prod-002", None)
    going(host, "prod-002")
    assert {d: c[:-1] for d, c in host.live_contents().items()} == two
    host.new()
    host.up()
    assert host.release == "prod-004"
    assert rollback_target(host.state, host.records) == "prod-002"


def test_a_failed_release_is_quarantined_until_it_is_answered() -> None:
    host = three_releases()
    host.new()
    assert host.up(fails=True).move is Move.FORWARD
    assert host.state.live == "shop-prod-003"
    again = host.plan()
    assert "quarantined" in again.refusals[0].message
    assert "retry shop-prod-004" in again.refusals[0].remedy
    host.retry = "shop-prod-004"
    plan = host.up()
    assert plan.to_world == "shop-prod-004_2"
    assert host.state.live_release == "prod-004"


def test_a_failed_world_stays_for_a_look_until_the_next_success() -> None:
    host = three_releases()
    host.new()
    host.up(fails=True)
    host.release = "prod-003"
    assert "shop-prod-004" in host.up().worlds
    host.new()
    assert "shop-prod-004" not in host.up().worlds
    assert host.state.worlds["shop-prod-004"].removed


def test_data_spoiled_by_a_failed_way_back_is_restored_from_the_store() -> None:
    host = three_releases()
    left = host.left["prod-002"]
    host.release = "prod-002"
    assert host.up(fails=True).datasets["db"].action is Action.ATTACH
    host.retry = "shop-prod-002"
    plan = host.up()
    assert plan.datasets["db"].action is Action.RESTORE
    assert host.live_contents()["db"][:-1] == left["db"]


def test_a_changed_secret_is_a_new_world_of_the_same_release() -> None:
    host = three_releases()
    host.secret = "two"
    plan = host.up()
    assert (plan.move, plan.to_world) == (Move.REFRESH, "shop-prod-003_2")
    assert plan.datasets["db"].action is Action.FORK
    host.release = "prod-002"
    back = host.up()
    assert back.to_world == "shop-prod-002_2"
    assert host.plan().move is Move.STAY


def test_a_missing_key_never_makes_a_refresh() -> None:
    host = three_releases()
    facts = replace(host.facts(), fingerprint="")
    plan = decide(host.stack(), host.state, facts)
    assert plan.move is Move.STAY
    assert any("key" in warning for warning in plan.warnings)
    host.secret = ""
    host.new()
    host.up()
    plan = host.plan()
    assert plan.move is Move.STAY
    assert any("key" in warning for warning in plan.warnings), "also once all worlds lack it"


def test_undo_of_a_refresh_goes_to_the_world_before() -> None:
    host = three_releases()
    before = host.live_contents()
    host.secret = "two"
    host.up()
    target = undo_target(host.state)
    assert target is not None
    assert target[1] is not None
    host.wish = target[1]
    plan = host.up()
    assert plan.move is Move.REFRESH
    assert plan.datasets["db"].action is Action.ATTACH
    assert host.live_contents()["db"][:-1] == before["db"]
    assert host.plan().move is Move.STAY


def test_undo_brings_back_the_data_although_rollbacks_keep_it() -> None:
    host = three_releases()
    before = host.live_contents()
    host.data = "keep"
    host.release = "prod-002"
    host.up()
    host.write()
    target = undo_target(host.state, host.data)
    assert target is not None
    host.release, host.wish = target
    plan = host.up()
    assert plan.move is Move.BACK
    assert plan.datasets["db"].action is Action.ATTACH
    assert "with the data prod-003 left" in plan.says
    assert host.live_contents()["db"][:-1] == before["db"]
    assert host.plan().move is Move.STAY


def test_a_wish_applies_once() -> None:
    host = three_releases()
    with_wish(host, at="arrival")
    plan = host.up()
    assert plan.move is Move.REFRESH
    assert plan.datasets["db"].action is Action.RESTORE
    assert host.live_contents()["db"][:-1] == host.left["prod-002"]["db"]
    inert = host.plan()
    assert inert.move is Move.STAY
    assert any("was fulfilled" in w for w in inert.warnings)


def test_a_wish_for_another_release_is_inert() -> None:
    host = three_releases()
    with_wish(host, at="arrival")
    host.release = "prod-002"
    assert host.up().datasets["db"].action is Action.ATTACH


def test_data_keep_takes_the_live_data_along() -> None:
    host = three_releases()
    before = host.live_contents()
    host.release, host.data = "prod-002", "keep"
    plan = host.up()
    assert (plan.move, plan.datasets["db"].action) == (Move.BACK, Action.FORK)
    assert host.live_contents()["db"][:-1] == before["db"]


@pytest.mark.parametrize(
    ("declared", "says"),
    [
        ("prod-009", "there is no release prod-009"),
        (None, "declares no release"),
    ],
)
def test_what_cannot_be_declared_is_refused(declared: str | None, says: str) -> None:
    host = three_releases()
    host.release = declared
    plan = host.plan()
    assert plan.move is Move.STAY
    assert says in plan.refusals[0].message


@pytest.mark.parametrize(
    ("gates", "refused", "warned"),
    [
        ({"gates": {"web": {"tcp": 80}}}, "", ""),
        ({"gates": {"web": {"sql": {"table": "t"}}}}, "config gates.web.sql: say what", ""),
        ({"gates": {"job": {"log": {"must": "done"}}}}, "", ""),
        ({"gates": {"job": {"tcp": 80, "log": {"must": "x"}}}}, "by gates (tcp) it has ended", ""),
        ({"gates": {"wbe": {"tcp": 80}}}, "", "gates.wbe asks nothing: prod-001 has no service"),
        ({"gates": {"late": {"tcp": 80}}}, "", "gates.late asks nothing: late starts after"),
        ({"stackGates": {"tcp": 80, "service": "wbe"}}, "", "stackGates asks nothing: prod-001"),
    ],
)
def test_gates_that_cannot_be_asked_are_refused_or_named(
    gates: dict[str, Any], refused: str, warned: str
) -> None:
    host = Host()
    name = host.new()
    noted = {"job": {"job": True}, "late": {"start": "after-commit"}}
    services = {service: {"image": "x", "x-lockstep": note} for service, note in noted.items()}
    record = host.records[name]
    model = {"services": {**record.model["services"], **services}}
    host.records[name] = record.model_copy(update={"model": model})
    host.release = name
    settings = Settings.model_validate({"release": name, **gates})
    plan = decide(host.stack().model_copy(update={"settings": settings}), host.state, host.facts())
    assert [refused in r.message for r in plan.refusals] == ([True] if refused else [])
    assert any(warned in text for text in plan.warnings) or not warned
    assert not any("asks nothing" in text for text in plan.warnings) or warned


def test_a_pruned_release_is_refused_as_pruned() -> None:
    host = three_releases(window=2)
    host.new()
    host.up()
    host.release = "prod-001"
    assert "was pruned" in host.plan().refusals[0].message


def test_of_four_releases_the_last_three_stay() -> None:
    host = three_releases()
    host.new()
    plan = host.up()
    assert plan.prune == ("prod-001",)
    assert [k.release for k in plan.keep] == ["prod-002", "prod-003", "prod-004"]


def test_not_enough_disk_says_the_numbers_and_the_ways_out() -> None:
    host = three_releases()
    host.new()
    facts = replace(host.facts(), disk=Disk(100, 1 << 40, False))
    refusal = decide(host.stack(), host.state, facts).refusals[0]
    assert "not enough disk" in refusal.message
    assert "window" in refusal.remedy
    reflink = replace(facts, disk=Disk(100, 1 << 40, True))
    assert decide(host.stack(), host.state, reflink).refusals == ()


def test_fault_14_too_few_inodes_for_the_whole_move_are_refused_with_the_numbers() -> None:
    """A fork of more files than the file system can still take: refused before anything is made;
    where there is no such limit (btrfs), or with reflinks, only the limit itself counts."""
    host = three_releases()
    host.new()
    much = host.facts()
    files = dict.fromkeys(much.volumes, 5000)
    tight = Disk(1 << 40, 1 << 40, True, volumes_inodes=5500, store_inodes=5500)
    (refusal,) = decide(host.stack(), host.state, replace(much, files=files, disk=tight)).refusals
    assert "inodes" in refusal.message
    assert "5500" in refusal.message
    free = replace(tight, volumes_inodes=None)
    assert decide(host.stack(), host.state, replace(much, files=files, disk=free)).refusals == ()


def test_what_volumes_and_store_need_together_must_fit_on_one_file_system() -> None:
    host = three_releases()
    record = host.records["prod-003"]
    docs = record.datasets["files"].model_copy(
        update={"name": "docs", "strategy": Strategy.IN_PLACE, "source": "/srv/docs"}
    )
    datasets = {**record.datasets, "docs": docs}
    host.new()
    host.records["prod-004"] = host.records["prod-004"].model_copy(update={"datasets": datasets})
    facts = host.facts()
    volumes = {**dict.fromkeys(facts.volumes, 600 << 20), "/srv/docs": 600 << 20}
    apart = Disk(1000 << 20, 1000 << 20, False)
    plan = decide(host.stack(), host.state, replace(facts, volumes=volumes, disk=apart))
    needed = plan.disk.needed
    roomy = replace(apart, volumes_free=needed + (100 << 20))
    plan = decide(host.stack(), host.state, replace(facts, volumes=volumes, disk=roomy))
    assert plan.refusals == ()
    one = replace(roomy, one=True)
    (refusal,) = decide(
        host.stack(), host.state, replace(facts, volumes=volumes, disk=one)
    ).refusals
    assert "safety snapshots" in refusal.message


def test_what_lies_on_a_fork_is_not_sought_in_place() -> None:
    """The volume of the compose file has none of it: the release would begin with nothing."""
    host = three_releases()
    record = host.records["prod-003"]
    files = record.datasets["files"].model_copy(update={"strategy": Strategy.IN_PLACE})
    host.new()
    host.records["prod-004"] = host.records["prod-004"].model_copy(
        update={"datasets": {**record.datasets, "files": files}}
    )
    (refusal,) = host.plan().refusals
    assert "files is to be worked on in place" in refusal.message
    assert "on a fork" in refusal.message


def test_a_snapshot_that_is_to_be_put_in_place_and_cannot_be_read_is_refused() -> None:
    """Going back without the data, because its record is damaged, would be a surprise."""
    host = three_releases()
    record = host.records["prod-001"]
    files = record.datasets["files"].model_copy(update={"strategy": Strategy.IN_PLACE})
    datasets = {**record.datasets, "files": files}
    host.records["prod-001"] = record.model_copy(update={"datasets": datasets})
    host.release = "prod-001"
    snapshot = host.plan().datasets["files"].snapshot
    assert snapshot is not None
    del host.snapshots[snapshot]
    (refusal,) = host.plan().refusals
    assert "files" in refusal.message
    near = next(d for d in host.state.departures if d.release == "prod-002").snapshots["files"]
    assert f"restore.at {near}   takes what prod-002 left" in refusal.remedy

    # What the remedy says is what then happens: that snapshot, and nothing of its own.
    host.wish = Wish(release="prod-001", at=near)
    plan = host.plan()
    assert plan.refusals == ()
    assert plan.datasets["files"].action is Action.IN_PLACE
    assert plan.datasets["files"].snapshot == near
    assert "lockstep repair" in refusal.remedy


def test_a_foreign_user_of_a_volume_is_refused() -> None:
    host = three_releases()
    host.new()
    facts = replace(host.facts(), foreign_mounts={"shop-prod_db_g3": ("intruder",)})
    assert "intruder" in decide(host.stack(), host.state, facts).refusals[0].message


def test_a_world_that_runs_beside_the_live_one_is_refused_and_warned_of() -> None:
    host = three_releases()
    host.started_by_hand = {"shop-prod-002"}
    staying = host.plan()
    assert staying.move is Move.STAY
    assert any("shop-prod-002 run although" in warning for warning in staying.warnings)
    host.release = "prod-002"
    assert "shop-prod-003 is live" in host.plan().refusals[0].message


def test_a_world_of_a_killed_up_is_used_again_unless_it_ever_ran() -> None:
    host = three_releases()
    host.new()
    host._make(host.plan())
    again = host.plan()
    assert (again.to_world, again.new_world) == ("shop-prod-004", False)
    facts = host.facts()
    ran = tuple(replace(c, state="exited") for c in facts.containers["shop-prod-004"])
    facts = replace(facts, containers={**facts.containers, "shop-prod-004": ran})
    anew = decide(host.stack(), host.state, facts)
    assert (anew.to_world, anew.new_world) == ("shop-prod-004_2", True)
    assert anew.datasets["db"].generation == "shop-prod_db_g5"


def test_a_failure_of_a_world_that_docker_could_not_start_is_answered_once() -> None:
    host = three_releases()
    host.new()
    plan = host.plan()
    host._make(plan)
    host.apply(
        Reverted(
            at=AT,
            move=plan.move.value,
            from_world=plan.from_world,
            to_world=str(plan.to_world),
            touched=False,
            quarantine=True,
            reason="web could not be started",
        )
    )
    assert "web could not be started" in host.plan().refusals[0].message
    host.retry = "shop-prod-004"
    answered = host.plan()
    assert (answered.refusals, answered.to_world) == ((), "shop-prod-004_2")
    host.up(fails=True)
    assert host.plan().refusals, "the same answer counts for one failure only"


def test_a_port_held_by_another_is_refused_before_anything_stops() -> None:
    host = three_releases()
    name = host.new()
    model = {
        "services": {"web": {"ports": [{"target": 80, "published": "8080", "protocol": "tcp"}]}}
    }
    host.records[name] = host.records[name].model_copy(update={"model": model})
    facts = replace(host.facts(), ports=(PortHolder(8080, "tcp", "container nginx"),))
    assert "8080/tcp" in decide(host.stack(), host.state, facts).refusals[0].message


def test_a_moved_or_missing_image_is_refused_for_the_target_and_warned_of_for_others() -> None:
    host = three_releases()
    images = {**host.facts().images, "shop-web:prod-002": "sha256:other"}
    facts = replace(host.facts(), images=images)
    stay = decide(host.stack(), host.state, facts)
    assert stay.refusals == ()
    assert "prod-002" not in stay.images
    assert any("prod-002 is unusable" in w for w in stay.warnings)
    host.release = "prod-002"
    assert "was moved" in decide(host.stack(), host.state, facts).refusals[0].message
    del images["shop-web:prod-002"]
    assert "is missing" in decide(host.stack(), host.state, facts).refusals[0].message


def test_a_vanished_dataset_is_refused_unless_named() -> None:
    host = three_releases()
    name = host.new()
    files = host.records[name].datasets["files"]
    host.records[name] = host.records[name].model_copy(update={"datasets": {"files": files}})
    assert "dataset db of prod-003 is not in prod-004" in host.plan().refusals[0].message
    renamed = files.model_copy(update={"name": "pg", "was": "db"})
    host.records[name] = host.records[name].model_copy(
        update={"datasets": {"files": files, "pg": renamed}}
    )
    plan = host.plan()
    assert plan.refusals == ()
    assert plan.datasets["pg"].source == "shop-prod_db_g3"
    dropped = {"datasets": {"files": files}, "dropped": ("db",)}
    host.records[name] = host.records[name].model_copy(update=dropped)
    assert host.plan().refusals == ()


@pytest.mark.parametrize("state", ["exited", "created", None])
def test_a_live_container_that_stands_still_or_is_gone_is_repaired(state: str | None) -> None:
    host = three_releases()
    facts = host.facts()
    live = facts.containers["shop-prod-003"]
    now = tuple(replace(c, state=state) for c in live) if state else ()
    plan = decide(
        host.stack(),
        host.state,
        replace(facts, containers={**facts.containers, "shop-prod-003": now}),
    )
    assert (plan.move, plan.to_world, plan.new_world) == (Move.REPAIR, "shop-prod-003", False)


def test_a_damaged_record_of_the_previous_release_leaves_its_world_declared() -> None:
    host = three_releases()
    facts = host.facts()
    records = {r: record for r, record in facts.records.items() if r != "prod-002"}
    facts = replace(facts, records=records, damaged={"prod-002": "prod-002 is damaged"})
    images = {**host.facts().images}
    plan = decide(host.stack(), host.state, replace(facts, images=images))
    assert plan.move is Move.STAY
    assert plan.worlds == ("shop-prod-003", "shop-prod-002")
    assert "prod-002" in plan.images
    assert plan.prune == ()


def test_what_remove_took_away_is_not_called_live_and_comes_back_from_the_newest_backup() -> None:
    """All worlds and volumes are gone: the live one is made again, or refused with the way to its
    data; its previous one stays gone."""
    host = three_releases()
    live = "shop-prod-003"
    snapshots = {
        "older": Snapshot("db", 9, created="2026-01-01T00:00:00", backup_of=live),
        "newer": Snapshot("db", 9, created="2026-01-02T00:00:00", backup_of=live),
        "other": Snapshot("db", 9, created="2026-01-03T00:00:00", backup_of="shop-prod-002"),
    }
    for world in ("shop-prod-002", live):
        host.apply(WorldRemoved(at=AT, world=world))
    assert host.state.dissolved
    assert (host.state.live_release, host.state.standing_release) == ("prod-003", None)

    facts = replace(host.facts(), snapshots={**host.facts().snapshots, **snapshots})
    there = decide(host.stack(), host.state, facts)
    assert (there.move, there.worlds, there.refusals) == (Move.REPAIR, (live,), ())
    assert "until `lockstep remove`" in there.says
    gone = decide(host.stack(), host.state, replace(facts, volumes={}))
    (remedy,) = [p.remedy for p in gone.refusals if "dataset db is gone" in p.message]
    assert "restore.at newer   takes the backup of 2026-01-02" in remedy

    host.apply(Recovered(at=AT, move="repair", from_world=live, to_world=live))
    assert not host.state.dissolved


def test_the_nearest_to_what_a_release_left_is_a_backup_of_its_world() -> None:
    host = three_releases()
    host.release = "prod-002"
    backup = Snapshot("db", 9, created="2026-01-01T00:00:00", backup_of="shop-prod-002")
    for kept, nearest in (({"backup": backup}, "restore.at backup   takes the backup"), ({}, "")):
        facts = replace(host.facts(), snapshots=kept, volumes={})
        (remedy,) = [
            p.remedy
            for p in decide(host.stack(), host.state, facts).refusals
            if "dataset db: the data prod-002 left" in p.message
        ]
        assert nearest in remedy
        assert ("restore.at" in remedy) is bool(kept)


def test_an_unfinished_switch_is_repaired_first() -> None:
    host = three_releases()
    host.release = "prod-002"
    plan = decide(host.stack(), host.state, replace(host.facts(), unfinished="shop-prod-002"))
    assert (plan.move, plan.to_world) == (Move.REPAIR, "shop-prod-003")


class AnyHistory(RuleBasedStateMachine):
    """Whatever people do, in whatever order: what is promised holds."""

    @initialize(window=st.integers(1, 4))
    def begin(self, window: int) -> None:
        self.host = Host(window)
        self.host.new()
        self.host.up()
        self.paid = True

    @rule(fails=st.booleans(), pays=st.booleans())
    def a_new_release(self, fails: bool, pays: bool) -> None:
        self.host.new()
        self._up(fails=fails, pays=pays)

    @rule(pick=st.integers(0, 10), fails=st.booleans(), pays=st.booleans())
    def another_release(self, pick: int, fails: bool, pays: bool) -> None:
        names = sorted(self.host.records)
        self.host.release = names[pick % len(names)]
        self._up(fails=fails, pays=pays)

    @rule()
    def answer_the_failure(self) -> None:
        if self.host.state.quarantined:
            release, world = sorted(self.host.state.quarantined.items())[0]
            self.host.release, self.host.retry = release, world
            self._up(fails=False, pays=True)

    @rule(secret=st.sampled_from(["one", "two"]))
    def rotate(self, secret: str) -> None:
        self.host.secret = secret
        self._up(fails=False, pays=True)

    @rule(at=st.sampled_from(["departure", "arrival"]), asked=st.integers(0, 99))
    def wish(self, at: str, asked: int) -> None:
        with_wish(self.host, at=at, asked=str(asked))
        self._up(fails=False, pays=True)

    @rule()
    def undo(self) -> None:
        target = undo_target(self.host.state)
        if target is not None and target[0] in self.host.records:
            self.host.release, self.host.wish = target
            self._up(fails=False, pays=True)

    @rule()
    def write(self) -> None:
        self.host.write()

    @rule()
    def declared_is_what_is_live(self) -> None:
        self.host.release, self.host.wish = self.host.state.live_release, None
        self._up(fails=False, pays=True)

    def _up(self, *, fails: bool, pays: bool) -> None:
        host = self.host
        left = dict(host.left)
        before = host.live_contents()
        plan = host.up(fails=fails, pays=pays)
        if plan.refusals:
            assert host.live_contents() == before
            return
        moved = plan.move not in (Move.STAY, Move.REPAIR)
        if moved and fails:
            assert host.live_contents() == before, "the data before the failure is back"
            return
        if plan.move is Move.BACK and plan.wish is None and host.data == "restore":
            now = {d: c[:-1] for d, c in host.live_contents().items()}
            assert now == left[str(plan.target)], "going back brings what the release left"
        if moved and plan.move is Move.FORWARD:
            assert {d: c[:-1] for d, c in host.live_contents().items()} == before
        if pays:
            again = host.plan()
            assert again.move is Move.STAY
            assert again.debts == ()
            assert set(again.worlds) <= set(plan.worlds)

    @invariant()
    def the_live_world_writes_only_its_own(self) -> None:
        if not hasattr(self, "host"):
            return
        state = self.host.state
        live = state.worlds[str(state.live)]
        assert not live.removed
        for generation in live.generations.values():
            assert state.generations[generation].sealed is None
            assert generation in self.host.contents

    @invariant()
    def every_departure_of_a_kept_release_can_be_had(self) -> None:
        if not hasattr(self, "host"):
            return
        host = self.host
        for release, contents in host.left.items():
            if release not in host.records:
                continue
            departure = host.state.departures_of(release)[-1]
            for dataset, content in contents.items():
                snapshot = departure.snapshots.get(dataset)
                generation = host.state.generations[departure.generations[dataset]]
                volume = not generation.removed and generation.sealed == departure.seq
                stored = snapshot is not None and host.snapshots.get(snapshot)
                if stored:
                    assert stored[1] == content
                else:
                    assert volume
                    assert host.contents[generation.name] == content or generation.spoiled


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)


def test_a_sealed_volume_that_somebody_used_is_not_attached() -> None:
    host = three_releases()
    host.release = "prod-002"
    facts = host.facts()
    world = replace(
        facts.containers["shop-prod-002"][0],
        volumes={"/db": "shop-prod_db_g2"},
        started="2025-12-31T23:59:59.123456789Z",
    )
    containers = {**facts.containers, "shop-prod-002": (world,)}
    before = decide(host.stack(), host.state, replace(facts, containers=containers))
    assert before.datasets["db"].action is Action.ATTACH
    again = replace(world, started="2026-01-01T00:00:01.123456789Z")
    containers = {**facts.containers, "shop-prod-002": (again,)}
    after = decide(host.stack(), host.state, replace(facts, containers=containers))
    assert after.datasets["db"].action is Action.RESTORE
    assert "was used since" in after.datasets["db"].source_text
    assert after.datasets["files"].action is Action.ATTACH


def test_fault_53_a_rollback_after_a_return_goes_to_where_it_came_from() -> None:
    """prod-001, prod-002, back to prod-001, prod-003: rollback goes to prod-001, whose parent link
    counts, and not to the number before; its data is what prod-001 left last."""
    host = Host()
    for _ in range(2):
        host.new()
        host.up()
    host.release = "prod-001"
    host.up()
    host.write()
    left = host.live_contents()
    host.new()
    host.up()
    before = host.live_contents()
    host.write()
    only_later = {n: set(t) - set(before[n]) for n, t in host.live_contents().items()}
    assert rollback_target(host.state, host.records) == "prod-001"
    host.release = "prod-001"
    host.up()
    for name, tokens in host.live_contents().items():
        assert tokens[: len(left[name])] == left[name]
        assert only_later[name]
        assert not only_later[name] & set(tokens)


def test_a_record_of_an_interrupted_adoption_is_not_pruned() -> None:
    host = Host()
    host.records["prod-000"] = hostmodel.release(0)
    host.new()
    assert host.plan().prune == ()
    host.up()
    host.release = host.new()
    assert host.plan().prune == ("prod-000",), "nothing was adopted"
