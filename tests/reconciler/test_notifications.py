"""Notifications against real servers, and what they say."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from reconciler import config
from reconciler.catalog import Catalog
from reconciler.config import Stack
from reconciler.errors import BadInput, Damage, Refused
from reconciler.notifications import look_at_disk, notifications, notifylog, stories, wording
from reconciler.notifications.notifysettings import Happening, Notify, Text
from reconciler.notifications.wording import Story
from reconciler.records.ledger import Committed, Recovered, Reverted, State, World
from tests.reconciler.receivers import hanging, mail_server, refusing, webhook

TOKEN = "t0ken-that-nobody-sees"
AT = "2026-01-02T03:04:05+00:00"
WORLDS = {f"shop-prod-00{n}": World(f"shop-prod-00{n}", f"prod-00{n}", {}, "") for n in (1, 2, 3)}


def stack(folder: Path, **values: Any) -> Stack:
    return config.read("shop", "prod", folder, values)


def documents(
    made: Stack, story: Story, limit: float, waits: tuple[float, ...] = ()
) -> list[dict[str, Any]]:
    receivers = list(enumerate(made.settings.notify, start=1))
    return notifications.documents(made, Catalog(made), receivers, story, limit=limit, waits=waits)


def outcome(kind: type, **more: Any) -> Any:
    said = {
        "at": AT,
        "who": "ann",
        "move": "forward",
        "from_world": "shop-prod-001",
        "to_world": "shop-prod-002",
        "started": "2026-01-02T03:04:01+00:00",
        "expected_seconds": 1.25,
    }
    return kind(**{**said, **more})


def test_each_receiver_is_told_or_the_log_says_why_not(tmp_path: Path) -> None:
    """A mail server and a web hook take it; one that hangs, one that answers 500, one that is not
    there and one that nobody knows are results of their own, and keep nobody else from it."""
    with webhook() as good, webhook(500) as ill, mail_server() as (box, port), hanging() as deaf:
        urls = {
            "hook": f"json://127.0.0.1:{good.port}/{TOKEN}",
            "mail": f"mailto://127.0.0.1:{port}/?from=stack@example.org&to=ann@example.org",
            "ill": f"json://127.0.0.1:{ill.port}/{TOKEN}",
            "deaf": f"json://127.0.0.1:{deaf}/{TOKEN}?rto=60&cto=60",
            "gone": f"json://127.0.0.1:{refusing()}/{TOKEN}",
            "odd": f"nosuchservice://{TOKEN}",
        }
        made = stack(
            tmp_path,
            secrets={"DB": "hunter2-hunter2"},
            notify=[{"url": url, "name": name} for name, url in urls.items()],
        )
        story = stories.damaged(made, "the pack of hunter2-hunter2 is short", next_step="")
        found = notifications.tell_and_wait(documents(made, story, limit=3))
    assert {e.to: e.result for e in found} == {
        "hook": "sent",
        "mail": "sent",
        "ill": "failed",
        "deaf": "timed-out",
        "gone": "failed",
        "odd": "failed",
    }
    assert "500" in next(e.why for e in found if e.to == "ill")
    told = good.got[0]
    assert told["title"] == "[shop/prod] damage was found: the pack of *** is short"
    assert "lockstep verify --read-data" in told["message"]
    subject, text = box.mails[0]
    assert subject == told["title"]
    assert "the pack of *** is short" in text
    log = notifications.log_path(Catalog(made))
    assert log.stat().st_mode & 0o777 == 0o600
    assert TOKEN not in log.read_text()
    assert "hunter2" not in log.read_text() + json.dumps(told) + text


def test_a_message_is_tried_again_and_each_try_is_in_the_log(tmp_path: Path) -> None:
    """A server that is ill for a while gets it in the end, one that hangs may be well the next
    time, and one that stays ill is given up; a URL that nobody knows is not tried again."""
    with webhook(500, 200) as ill, webhook(500) as dead, hanging() as deaf:
        urls = {
            "ill": f"json://127.0.0.1:{ill.port}/{TOKEN}",
            "dead": f"json://127.0.0.1:{dead.port}/{TOKEN}",
            "deaf": f"json://127.0.0.1:{deaf}/{TOKEN}?rto=60&cto=60",
            "odd": f"nosuchservice://{TOKEN}",
        }
        made = stack(tmp_path, notify=[{"url": url, "name": name} for name, url in urls.items()])
        given = documents(made, stories.damaged(made, "it broke", next_step=""), 2, (0.1,))
        found = {e.to: e for e in notifications.tell_and_wait(given)}
    tried = {name: [t.result for t in entry.tries] for name, entry in found.items()}
    assert tried == {
        "ill": ["failed", "sent"],
        "dead": ["failed"] * 2,
        "deaf": ["timed-out"] * 2,
        "odd": ["failed"],
    }
    assert {name: entry.result for name, entry in found.items()} == {
        name: results[-1] for name, results in tried.items()
    }
    assert (len(ill.got), len(dead.got)) == (2, 2)
    assert ["500" in t.why for t in found["ill"].tries] == [True, False]
    lines = notifications.log_path(Catalog(made)).read_text().splitlines()
    of_dead = [e for e in map(json.loads, lines) if e["to"] == "dead"]
    assert [e["result"] for e in of_dead] == ["begun", "again", "failed"]
    assert TOKEN not in "".join(lines)


def test_outcomes_are_told_once_by_a_process_of_their_own(tmp_path: Path) -> None:
    """Whoever wants to know of what happened is told of it, nobody else, and nobody waits."""
    with webhook() as everything, webhook() as bad_news, hanging() as deaf:
        made = stack(
            tmp_path,
            notify=[
                {"url": f"json://127.0.0.1:{everything.port}/"},
                {"url": f"json://127.0.0.1:{bad_news.port}/", "events": ["failed", "damage"]},
                {"url": f"json://127.0.0.1:{deaf}/", "events": ["damage"], "name": "deaf"},
            ],
        )
        catalog = Catalog(made)
        story = stories.ended(made, State(seq=3, worlds=WORLDS), outcome(Committed), description="")
        notifications.tell(made, catalog, (Happening.COMMITTED,), story, outcome=3)
        everything.await_some(1)
        notifications.tell_failure(made, "prod-002", Refused("no room", next_step="make room"))
        everything.await_some(2)
        bad_news.await_some(1)
        notifications.tell_failure(made, "prod-002", Damage("the store is damaged"))
        everything.await_some(3)
        bad_news.await_some(2)
        titles = [m["title"] for m in everything.got]
        assert titles == [
            "[shop/prod] prod-002 is live",
            "[shop/prod] prod-002: no room",
            "[shop/prod] damage was found: the store is damaged",
        ]
        assert [m["title"] for m in bad_news.got] == titles[1:]
        assert "make room" in everything.got[1]["message"]
        deaf_ones = [e for e in notifications.read_log(catalog) if e.to == "deaf"]
        assert [e.result for e in deaf_ones] == ["begun"]


def test_a_full_disk_is_told_once_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks, and how often; where the log cannot be kept at least once by each process. A
    trial tells nobody of a disk."""
    with webhook() as hook:
        values = {"notify": [{"url": f"json://127.0.0.1:{hook.port}/"}]}
        low = stack(tmp_path, **values, diskLow="900TiB")
        catalog = Catalog(low)
        story, told = stories.trial(low, Happening.DISK_LOW), list(enumerate(low.settings.notify))
        notifications.tell_and_wait(
            notifications.documents(low, catalog, told, story, trial=True, waits=())
        )
        notifications.tell_of_disk(stack(tmp_path, **values, diskLow=0), catalog)
        look = partial(notifications.tell_of_disk, low, catalog)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: look(), range(4)))
        hook.await_some(2)
        monkeypatch.setattr(notifications, "_disk_told", None)
        look()
        found = notifications.read_log(catalog)
        assert [(e.event, e.trial) for e in found] == [("disk-low", True), ("disk-low", False)]
        notifications.log_path(catalog).unlink()
        look()
        assert notifications.read_log(catalog) == []
        assert "is nearly full" in hook.got[1]["title"]


def test_nothing_is_done_where_nobody_is_to_be_told(tmp_path: Path) -> None:
    made = stack(tmp_path)
    with notifications.telling(made, Catalog(made)):
        notifications.tell_failure(made, "prod-001", Refused("no"))
        look_at_disk(made, Catalog(made))
    assert not (tmp_path / "releases").exists()


@pytest.mark.parametrize(
    ("ended", "event", "title", "says"),
    [
        (
            outcome(Committed, downtime_seconds=0.9, sealed={"db": "g1"}),
            "committed",
            "prod-002 is live",
            {"measured": "0.90 s", "data": "db (g1) as prod-001 left it", "why": "new checkout"},
        ),
        (
            outcome(
                Committed,
                move="back",
                operator_reason="orders are lost",
                set_aside={"db": {"orders": 3}},
            ),
            "rolled-back",
            "rolled back to prod-002",
            {"why": "orders are lost; new checkout", "data": "more than now: db: 3 orders"},
        ),
        (
            outcome(
                Reverted,
                reason="web ended",
                touched=True,
                quarantine=True,
                sealed={"db": "g2"},
                incident="7",
            ),
            "quarantined",
            "prod-002 did not pass its proof; prod-001 is live, with its own data",
            {
                "why": "web ended",
                "data": "db (g2) as prod-002 wrote it is kept in shop-prod-002",
                "next": "mend it and   lockstep new; or   lockstep config set retry shop-prod-002",
                "incident": "releases/incidents/7",
            },
        ),
        (
            outcome(Reverted, reason="killed", touched=False, quarantine=False, from_world=None),
            "reverted",
            "prod-002 could not be made live; nothing is live",
            {"next": "lockstep up   tries again", "data": ""},
        ),
        (
            outcome(Recovered, move="repair", reason="web stood still"),
            "recovered",
            "prod-002 was brought back",
            {"what": "shop-prod-002 is live; web stood still"},
        ),
    ],
)
def test_an_outcome_is_told_by_its_facts(
    tmp_path: Path, ended: Any, event: str, title: str, says: dict[str, str]
) -> None:
    made = stack(tmp_path)
    state = State(seq=3, live="shop-prod-001", worlds=WORLDS)
    story = stories.ended(made, state, ended, description="new checkout")
    assert (story.event, story.title) == (event, title)
    assert {name: getattr(story, name) for name in says} == says
    assert (story.who, story.expected) == ("ann", "about 1.2 s")
    for text in Text:
        subject, body = wording.written(tmp_path, {}, text, story)
        assert subject
        assert "$" not in subject + body
        assert ("measured" in body) == bool(story.measured)


def test_texts_have_the_words_of_the_team(tmp_path: Path) -> None:
    (tmp_path / "team.txt").write_text(
        "Release $release $event\n\nnobody: $who $incident\nalways here\nlost: $data\n\nA: $back\n"
    )
    made = stack(tmp_path, texts={"team": "team.txt"})
    story = stories.trial(made, Happening.STARTED)
    subject, body = wording.written(tmp_path, made.settings.texts, Text.TEAM, story)
    assert subject == "Release  started"
    assert body == "", "a paragraph without one fact is left out"
    told = stories.failed(made, State(), "prod-007", "it broke", next_step="")
    assert wording.written(tmp_path, {}, Text.TEAM, told)[0] == "[shop/prod] prod-007: it broke"


@pytest.mark.parametrize(
    ("template", "refusal"),
    [
        ("$titel", "uses $titel, which nobody knows"),
        ("costs 5 $ a day", "has a $ that begins no name"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_early(
    tmp_path: Path, template: str | None, refusal: str
) -> None:
    if template is not None:
        (tmp_path / "after.txt").write_text(template)
    with pytest.raises(BadInput) as raised:
        stack(tmp_path, texts={"afterwards": "after.txt"})
    assert refusal in str(raised.value)
    assert "texts.afterwards" in str(raised.value)


@pytest.mark.parametrize(
    "wrong", [{"url": "not a url"}, {"url": "json://h", "events": ["no-such"]}, {"events": []}]
)
def test_a_receiver_that_cannot_be_used_is_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=r"config notify\.0"):
        stack(tmp_path, notify=[wrong])


def test_a_receiver_is_called_by_its_name_or_its_service() -> None:
    assert Notify(url="slack://a/b/c").label(2) == "slack 2"
    assert Notify(url="slack://a/b/c", name="ops").label(2) == "ops"


def test_the_log_stays_small_and_survives_what_others_wrote_into_it(tmp_path: Path) -> None:
    path = tmp_path / notifylog.NAME
    path.write_bytes(b"\xff not a line\n" + b"x" * (1 << 20))
    notifylog.write(path, notifylog.Entry(id="1", event="started", to="ops", result="begun"))
    notifylog.write(path, notifylog.Entry(id="1", event="started", to="ops", result="sent"))
    assert path.stat().st_size < 1000
    assert [e.result for e in notifylog.read(path)] == ["sent"]


def test_the_page_names_every_event_and_every_name_of_a_template() -> None:
    page = (Path(__file__).parents[2] / "docs" / "notifications.md").read_text()
    assert [e for e in Happening if f"| `{e}` |" not in page] == []
    assert [n for n in wording.NAMES if f"`${n}`" not in page] == []
