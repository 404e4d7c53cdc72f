"""The JSON documents are a contract: their keys, their words; they fit what decide does."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from cli import documents, impact, moved, tables
from reconciler.plan import Action, DatasetPlan, DiskNeed, Kept, Move, Plan, Refusal
from reconciler.planning import retention
from reconciler.records.hookrecord import HookRun
from reconciler.records.ledger import Committed, Hooked, add
from tests.documents import insist
from tests.reconciler.hostmodel import Host
from tests.reconciler.test_story import AT, WARNED, history
from tests.stacks.harness import ROOT

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def host() -> Host:
    """Five releases were live, prod-006 failed; the window is three."""
    host = Host(window=3)
    for _ in range(5):
        host.new()
        host.up()
        host.write()
    host.new()
    host.up(fails=True)
    return host


def test_list_has_every_release_there_ever_was(host: Host) -> None:
    document = documents.releases(host.state, host.records, {})
    assert list(document) == ["schema", "live", "releases"]
    assert document["schema"] == 1
    assert document["live"] == "prod-005"
    assert {r["release"]: r["status"] for r in document["releases"]} == {
        "prod-001": "pruned",
        "prod-002": "pruned",
        "prod-003": "kept",
        "prod-004": "previous",
        "prod-005": "live",
        "prod-006": "failed",
    }
    for entry in document["releases"]:
        assert list(entry) == [
            "release", "status", "created", "description", "git_commit", "images", "bytes",
            "quarantined",
        ]  # fmt: skip
    assert document["releases"][4]["images"] == {"web": "shop-web:prod-005"}
    json.dumps(document)


def test_a_damaged_record_is_listed_as_unusable(host: Host) -> None:
    del host.records["prod-004"]
    document = documents.releases(host.state, host.records, {"prod-004": "it is cut off"})
    (entry,) = [r for r in document["releases"] if r["release"] == "prod-004"]
    assert entry["unusable"] == "it is cut off"
    assert entry["status"] == "previous"


def test_images_that_are_the_same_are_counted_once(host: Host) -> None:
    record = host.records["prod-005"]
    image = record.images["web"].model_copy(update={"bytes": 7})
    twice = record.model_copy(update={"images": {"web": image, "worker": image}})
    assert documents.image_bytes(twice) == 7


def test_how_data_comes_back_is_what_decide_does(host: Host) -> None:
    for release in ("prod-003", "prod-004"):
        host.release = release
        actions = {d.action.value for d in host.plan().datasets.values()}
        assert actions == {documents.data_at_hand(host.state, release)}
    assert documents.data_at_hand(host.state, "prod-005") == "live"
    assert documents.data_at_hand(host.state, "prod-001") is None
    assert documents.data_at_hand(host.state, "prod-006") is None


def test_data_without_volume_and_snapshot_is_gone() -> None:
    host = Host(window=1)
    for _ in range(2):
        host.new()
        host.up(pays=False)
    state = host.state
    assert documents.data_at_hand(state, "prod-001") == "attach"
    volume = state.worlds["shop-prod-001"].generations["db"]
    from dataclasses import replace

    spoiled = replace(state.generations[volume], spoiled=True)
    generations = {**state.generations, volume: spoiled}
    assert documents.data_at_hand(replace(state, generations=generations), "prod-001") == "gone"


def test_log_is_newest_first_and_speaks_of_releases(host: Host) -> None:
    document = documents.log(host.state)
    assert document["schema"] == 1
    newest = document["entries"][0]
    assert list(newest) == [
        "at", "who", "move", "from", "to", "result", "reason", "downtime_seconds", "datasets",
        "operator_reason", "incident", "gates",
        "hooks", "logs",
    ]  # fmt: skip
    assert (newest["move"], newest["from"], newest["to"]) == ("forward", "prod-005", "prod-006")
    assert (newest["result"], newest["reason"]) == ("reverted", "web never healthy")
    assert [e["to"] for e in document["entries"]] == [f"prod-{n:03d}" for n in (6, 5, 4, 3, 2, 1)]
    assert document["entries"][-1]["from"] is None
    json.dumps(document)


def test_log_has_the_hooks_of_each_switch(host: Host) -> None:
    """Those before the outcome and those after it; the table shows what did not pass."""
    warm = HookRun(name="warm", at="post-commit", result="failed", seconds=1.5, said="no cache")
    host.apply(Hooked(at=NOW.isoformat(), world="shop-prod-006", hooks=(warm,)))
    newest, *older = documents.log(host.state)["entries"]
    assert newest["hooks"] == [
        {
            "name": "warm",
            "at": "post-commit",
            "of": "",
            "result": "failed",
            "seconds": 1.5,
            "said": "no cache",
        }
    ]
    assert [entry["hooks"] for entry in older] == [[]] * 5
    shown = drawn(*tables.log([newest], NOW))
    assert "prod-006 hook warm (post-commit) failed: no cache" in shown


def test_preview_has_the_whole_plan(host: Host) -> None:
    host.release = "prod-003"
    document = documents.preview(host.plan(), host.state)
    described = (ROOT / "docs" / "preview.md").read_text()
    assert [key for key in document if f"`{key}`" not in described] == []
    assert document["schema"] == 1
    assert (document["move"], document["from"], document["to"]) == ("back", "prod-005", "prod-003")
    assert set(document["datasets"]) == {"db", "files"}
    for entry in document["datasets"].values():
        assert [key for key in entry if f"`{key}`" not in described] == []
        assert entry["action"] == "restore"
        assert entry["age_seconds"] > 0
    assert {k["release"] for k in document["keep"]} >= {"prod-003", "prod-005"}
    assert all(k["reasons"] for k in document["keep"])
    json.dumps(document)


def test_the_downtime_is_measured_or_marked_as_a_guess(host: Host) -> None:
    host.new()
    measured = documents.preview(host.plan(), host.state)["downtime"]
    assert measured["measured_switches"] > 1
    assert measured["worst_seconds"] >= measured["seconds"] > 0
    assert measured["guess"] is False
    host.release = "prod-003"
    guessed = documents.preview(host.plan(), host.state)["downtime"]
    assert (guessed["measured_switches"], guessed["worst_seconds"]) == (0, None)
    assert guessed["guess"] is True


def test_a_refused_preview_says_why_and_with_which_code(host: Host) -> None:
    host.release = "prod-006"
    (refusal,) = documents.preview(host.plan(), host.state)["refusals"]
    assert "quarantined" in refusal["message"]
    assert "lockstep" in refusal["remedy"]
    assert refusal["exit_code"] == 3


def test_info_has_record_worlds_departures_and_reasons(host: Host) -> None:
    kept, _ = retention.retain(
        host.window,
        host.records,
        host.state,
        live="prod-005",
        previous="prod-004",
        unfinished=(),
        now=0.0,
    )
    reasons = next(k.reasons for k in kept if k.release == "prod-004")
    document = documents.info("prod-004", host.state, host.records["prod-004"], reasons)
    assert document["release"]["name"] == "prod-004"
    assert document["status"] == "previous"
    assert "previous" in document["kept_because"]
    assert [w["state"] for w in document["worlds"]] == ["previous"]
    (departure,) = document["departures"]
    assert set(departure["snapshots"]) == {"db", "files"}
    assert departure["failed"] is False
    json.dumps(document)
    failed = documents.info("prod-006", host.state, host.records["prod-006"], ())
    assert failed["worlds"][0]["state"] == "failed"
    assert failed["worlds"][0]["failed"] == "web never healthy"
    assert failed["departures"][0]["failed"] is True
    pruned = documents.info("prod-001", host.state, None, ())
    assert (pruned["release"], pruned["status"]) == ({"name": "prod-001"}, "pruned")


def test_diff() -> None:
    assert documents.diff("a", "b", ["web: image x -> y"]) == {
        "schema": 1,
        "from": "a",
        "to": "b",
        "differences": ["web: image x -> y"],
    }


def drawn(*parts: object) -> str:
    console = Console(width=tables.WIDTH, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    for part in parts:
        console.print(part)
    text = console.export_text()
    assert all(len(line) <= tables.WIDTH for line in text.splitlines())
    return text


def test_the_tables_show_what_the_documents_have(host: Host) -> None:
    document = documents.releases(host.state, host.records, {"prod-009": "it is cut off"})
    ways = {"prod-004": "attach"}
    listed = drawn(tables.releases(document, ways, NOW)).splitlines()
    assert listed[2].startswith("prod-009")
    assert "unusable: it is cut off" in listed[2]
    assert "failed" in listed[3]
    assert any("prod-004" in line and "attach" in line and "24 h" in line for line in listed)
    logged = drawn(*tables.log(documents.log(host.state)["entries"], NOW))
    assert "web never healthy" in logged
    assert "1.00 s" in logged
    info = documents.info("prod-004", host.state, host.records["prod-004"], ("previous",))
    shown = drawn(*tables.info(info, NOW))
    assert "kept because" in shown
    assert "shop-web:prod-004" in shown
    assert info["departures"][0]["snapshots"]["db"] in shown


def test_a_long_reason_is_cut_in_the_list(host: Host) -> None:
    document = documents.releases(host.state, host.records, {})
    (failed,) = [r for r in document["releases"] if r["release"] == "prod-006"]
    failed["quarantined"] = "the health check of web failed " * 20
    shown = " ".join(drawn(tables.releases(document, {}, NOW)).split())
    assert "quarantined: the health check" in shown
    assert shown.count("the health check") < 5
    assert "…" in shown


def test_what_is_too_long_for_a_line_goes_on_below_its_own_text() -> None:
    words = "word " * 30
    first, second, *_ = tables.folded([f"  what failed    {words}"]).splitlines()
    assert len(first) <= tables.WIDTH
    assert second.startswith(" " * 17 + "word")
    assert tables.folded(["  next           mend it, then   up", "", "a\n  b"]).splitlines() == [
        "  next           mend it, then   up", "", "a", "  b",
    ]  # fmt: skip


def test_a_description_with_brackets_is_shown_as_it_is(host: Host) -> None:
    record = host.records["prod-005"].model_copy(update={"description": "[bold]fix[/bold] [1]"})
    document = documents.releases(host.state, {"prod-005": record}, {})
    assert "[bold]fix[/bold] [1]" in drawn(tables.releases(document, {}, NOW))


@pytest.mark.parametrize(
    ("at", "text"),
    [
        ((NOW - timedelta(seconds=30)).isoformat(), "30 s"),
        ("2026-01-01T23:00:00+00:00", "60 min"),
        ("2026-01-01T23:00:00", "60 min"),
        ("2026-01-03T00:00:00+00:00", "0 s"),
        (None, ""),
        ("", ""),
    ],
)
def test_ages(at: str | None, text: str) -> None:
    assert tables.age_of(at, NOW) == text


def a_plan(**changes: object) -> Plan:
    data = DatasetPlan(
        "db-data",
        Action.RESTORE,
        "shop-prod_db-data_g5",
        5,
        new=True,
        source_text="the data prod-001 left, from the store",
        age_seconds=7200.0,
        bytes=12 << 20,
        set_aside={"shop.orders": 412},
    )
    values: dict[str, object] = {
        "move": Move.BACK,
        "head": 1,
        "target": "prod-001",
        "from_world": "shop-prod-003",
        "to_world": "shop-prod-001_2",
        "new_world": True,
        "datasets": {"db-data": data},
        "says": "prod-003 -> prod-001: back, with the data prod-001 left",
        "downtime_estimate_seconds": 1.4,
        "downtime_basis": "median of 3 switches",
        "disk": DiskNeed(12 << 20, 10 << 30, 9 << 30),
        "keep": (Kept("prod-003", ("previous",)), Kept("prod-001", ("live", "pinned"))),
        "prune": ("prod-000",),
        **changes,
    }
    return Plan(**values)  # type: ignore[arg-type]


def screen(plan: Plan) -> str:
    console = Console(width=tables.WIDTH, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    impact.show(plan, console)
    text = console.export_text()
    assert all(len(line) <= tables.WIDTH for line in text.splitlines())
    return text


def test_the_impact_screen_tells_all_that_matters() -> None:
    shown = screen(a_plan(warnings=("the clock is odd",)))
    for text in (
        "prod-003 -> prod-001: back",
        "restore",
        "the data prod-001 left, from the store",
        "2 h",
        "12.0 MiB",
        "412 shop.orders",
        "lockstep undo",
        "about 1.4 s (median of 3 switches)",
        "12.0 MiB needed, 10.0 GiB free",
        "prod-000 (out of the window)",
        "prod-001: live, pinned",
        "the clock is odd",
    ):
        assert text in shown


def test_the_impact_screen_of_a_refusal_has_the_remedy() -> None:
    shown = screen(a_plan(refusals=(Refusal("port 80/tcp is held by x", "stop it"),)))
    assert "refused" in shown
    assert "port 80/tcp is held by x" in shown
    assert "stop it" in shown


def test_the_impact_screen_of_standing_still_is_short() -> None:
    shown = screen(
        a_plan(move=Move.STAY, says="prod-001 is live; nothing to do", keep=(), prune=(),
               disk=DiskNeed(0, 0, 0))
    )  # fmt: skip
    assert "nothing to do" in shown
    assert "downtime" not in shown
    assert "dataset" not in shown


def test_a_rollback_is_shown_beside_the_other_ways() -> None:
    console = Console(width=tables.WIDTH, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    refused = a_plan(refusals=(Refusal("there is too little room"),))
    keeping = a_plan(datasets={}, downtime_measured=3)
    ways = [("lockstep rollback (this)", a_plan()), ("keep", keeping), ("lockstep undo", refused)]
    impact.compare(ways, console)
    shown = console.export_text()
    assert all(len(line) <= tables.WIDTH for line in shown.splitlines())
    this, keep, undo = (next(r for r in shown.splitlines() if r.startswith(w)) for w, _ in ways)
    assert "~1.4 s" in this
    assert "412 shop.orders" in this
    assert "~" not in keep
    assert "nothing" in keep
    assert "refused" in undo


def test_gates_and_the_story_of_a_failure_are_shown() -> None:
    state = history()
    document = documents.info("prod-002", state, None, ())
    assert [gate["result"] for gate in document["gates"]] == ["failed", "warned", "passed"]
    assert document["story"]["parts"]["other gates"][0] == "gate its log of db warned: says ERROR"
    json.dumps(document)
    shown = Console(width=tables.WIDTH, record=True, file=io.StringIO())
    for part in tables.info(json.loads(json.dumps(document)), datetime.now(UTC)):
        shown.print(part)
    text = shown.export_text()
    (row,) = (line.split() for line in text.splitlines() if line.startswith("checkout"))
    assert row == ["checkout", "web", "failed", "13", "4.0", "answered", "503"]
    assert "prod-002 did not pass its proof" in text
    assert documents.info("prod-001", state, None, ())["story"] is None


def test_what_only_warned_is_shown_in_the_log() -> None:
    warned = Committed(
        at=AT, move="forward", from_world="shop-prod-001", to_world="shop-prod-002", gates=(WARNED,)
    )
    state = add(history(), history().seq + 1, warned)
    shown = Console(width=tables.WIDTH, record=True, file=io.StringIO())
    for part in tables.log(documents.log(state)["entries"], datetime.now(UTC)):
        shown.print(part)
    assert "prod-002: gate its log of db warned: says ERROR (0.0 s)" in shown.export_text()


@pytest.mark.parametrize(
    ("end", "result"),
    [
        (moved.End(0), "nothing-to-do"),
        (moved.End(1, "Docker failed"), "failed"),
        (moved.End(1, "declined", declined=True), "declined"),
        (moved.End(2, "no such release"), "refused"),
        (moved.End(3), "refused"),
        (moved.End(6, "busy"), "refused"),
        (moved.End(130, "interrupted", unfinished=True), "unfinished"),
    ],
)
def test_a_move_that_switched_nothing_says_why(host: Host, end: moved.End, result: str) -> None:
    document = moved.of("up", None, host.state, host.state, end, 0.1)
    insist(["up", "--json"], document)
    assert document["result"] == result
    assert (document["live"], document["datasets"]) == (host.state.live_release, {})


def test_a_move_is_told_as_the_ledger_has_it(host: Host) -> None:
    before, host.release = host.state, "prod-004"
    plan = host.plan()
    host.up()
    back = moved.of("rollback", plan, before, host.state, moved.End(0), 1.0)
    insist(["rollback", "--json"], back)
    assert (back["result"], back["from"], back["to"]) == ("committed", "prod-005", "prod-004")
    assert back["live"] == "prod-004"
    before = host.state
    host.new()
    host.up(fails=True)
    failed = moved.of("up", host.plan(), before, host.state, moved.End(4, "broken"), 1.0)
    insist(["up", "--json"], failed)
    assert (failed["result"], failed["live"], failed["error"]) == ("reverted", "prod-004", "broken")
