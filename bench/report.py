"""docs/benchmarks.md, made from the results alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from bench import catalog, helping, ingress, stopping, storing
from bench.goals import Goal, behind, goals, ground_name, largest, number
from bench.grounds import LOOPED
from bench.plot import svg
from bench.results import Figure, Results, Series
from bench.stopping import FLOOR

MIB = 1 << 20
PAGE, PLOT = "benchmarks.md", "benchmarks.svg"
STEPS = (storing.FIRST, storing.NEXT, storing.EMPTY, storing.IN_PLACE)
PEERS = ("tar czf", "cp -a", "restic", "borg")
OURS = ("lockstep", "lockstep on xfs", "lockstep on btrfs")
ABSENT = "-"
ROUNDS = 3  # fewer make a quick look


def write(results: Results, folder: Path) -> None:
    """Both files, whole."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PLOT).write_text(svg(results))
    (folder / PAGE).write_text("\n".join(page(results)) + "\n")


def page(results: Results) -> Iterator[str]:
    """The page's lines."""
    facts = results.facts
    machine = facts.get("machine", {})
    yield "# Benchmarks"
    yield ""
    made = sorted({(str(part["date"]), str(part["commit"])) for part in results.parts.values()})
    when = " and ".join(f"on {date} at commit {commit}" for date, commit in made)
    yield (
        f"Made by `make bench` {when or '(nothing was measured)'}; every figure is a median, n is "
        "how many it is of."
    )
    if quick_look(results):
        yield ""
        yield (
            f"**A quick look, not the bench**: sizes x {facts['scale']:g}, "
            f"{_rounds(results)} rounds. Start-up times weigh more in it than the work."
        )
    yield ""
    yield "## Goals"
    yield ""
    yield from goals_table(goals(results))
    yield ""
    yield f"![the same as bars, on a log scale]({PLOT})"
    yield ""
    yield from _stopping(results)
    for prefix in ("postgres-", "files-", "sparse-"):
        subject = largest(results, storing.CHAPTER, prefix)
        if subject is not None:
            yield from _storing(results, title(subject), subject)
    yield from through_the_helper(results)
    yield from catalog.page(results)
    yield from behind_the_ingress(results)
    yield from _method(machine, facts, results.parts)


def quick_look(results: Results) -> bool:
    """Whether it is too small, or any of it was measured too seldom, to be believed."""
    return bool(results.facts["scale"] != 1.0 or _rounds(results) < ROUNDS)


def _rounds(results: Results) -> int:
    return min((int(part["rounds"]) for part in results.parts.values()), default=0)


def title(subject: str) -> str:
    """`PostgreSQL of 2 GiB`: what a subject's name (kind-size) means."""
    kind, _, size = subject.partition("-")
    amount = int(size)
    if kind == "postgres":
        return f"PostgreSQL of {f'{amount / 1024:g} GiB' if amount >= 1024 else f'{amount} MiB'}"
    if kind == "files":
        return f"{amount:,} small files".replace(",", " ")
    return f"A sparse file of {amount} GiB"


def goals_table(found: Sequence[Goal]) -> Iterator[str]:
    """goal / measured / reached; missed ones and those without a measurement included."""
    yield "| goal | to reach | measured | from | n | reached |"
    yield "| --- | ---: | ---: | --- | ---: | --- |"
    words = {True: "yes", False: "**no**", None: "not measured"}
    for goal in found:
        bound = f"{'≤' if goal.at_most else '≥'} {goal.bound:g} {goal.unit}"
        measured = ABSENT if goal.measured is None else f"{number(goal.measured)} {goal.unit}"
        yield (
            f"| {goal.text} | {bound} | {measured} | {goal.how or ABSENT} | {goal.n or ABSENT} "
            f"| {words[goal.reached]} |"
        )


def _stopping(results: Results) -> Iterator[str]:
    """Seconds without service; every ground has its own floor."""
    rows = []
    for kind, who in (
        *(("disk", name) for name in (FLOOR, *PEERS, "lockstep")),
        *((kind, name) for kind in LOOPED for name in (FLOOR, "lockstep")),
    ):
        figures = [
            results.figure(Series(stopping.CHAPTER, kind, who, what))
            for what in (stopping.FORWARD, stopping.BACK, stopping.BACK_RESTORE)
        ]
        if not any(figures):
            continue
        floor = results.figure(Series(stopping.CHAPTER, kind, FLOOR, stopping.FORWARD))
        rows.append([who, ground_name(results, kind), *(_of(f, floor) for f in figures)])
    if not rows:
        return
    yield "## How long the service is stopped"
    yield ""
    yield (
        "Seen by a client that asks every 20 ms over a new connection, with 300 transactions/s on "
        "the database. Forward: a new release (fork), or stop, back up, start. Back: the release "
        "before with its data (attach), or stop, put back, start; restored: to a release that is "
        "only in the store. In brackets: times the floor, n."
    )
    yield ""
    yield from table(["", "file system", "forward", "back", "back, restored"], rows)
    yield ""
    latency = []
    for kind in ("disk", *LOOPED):
        pair = [
            results.figure(Series(stopping.CHAPTER, kind, "lockstep", what))
            for what in (stopping.REST, stopping.PREPARING)
        ]
        if any(pair):
            cells = [f"{number(f.value * 1000)} ms (n={f.n})" if f else ABSENT for f in pair]
            latency.append([ground_name(results, kind), *cells])
    if latency:
        yield "The 99th percentile of the transactions' latency, as pgbench counts it:"
        yield ""
        yield from table(["file system", "at rest", "while a fork is prepared"], latency)
        yield ""


BEHIND = "## Behind the ingress"


def behind_the_ingress(results: Results) -> Iterator[str]:
    """The chapter `ingress` with its own goals and its own date: it can be measured alone."""
    part = results.parts.get(ingress.CHAPTER)
    subject = largest(results, ingress.CHAPTER, "postgres-")
    if part is None or subject is None:
        return
    yield BEHIND
    yield ""
    yield (
        f"Measured on {part['date']} at commit {part['commit']} (`python -m bench --only "
        f"ingress`): {ingress.RATE:.0f} requests/s over fresh connections, a {title(subject)} "
        "forward on a fork and back; then a release that acknowledges orders and never gets "
        "healthy. The highest figure of all rounds, of the head-room the lowest."
    )
    yield ""
    yield from goals_table(list(behind(results)))
    yield ""
    rows = []
    for move in ingress.MOVES:
        of = partial(_ingress_figure, results, subject, move)
        rows.append(
            [
                move,
                _seconds(of(ingress.AT_REST, max)),
                _seconds(of(ingress.HELD, max)),
                _seconds(of(ingress.LONGEST, max)),
                ABSENT if (room := of(ingress.HEAD_ROOM, min)) is None else f"{room.value:.0f}",
            ]
        )
    head = ["", "longest wait before", "held", "longest wait", "answers in the second after"]
    yield from table(head, rows)
    yield ""


def _ingress_figure(
    results: Results, subject: str, move: str, what: str, of: Callable[[Sequence[float]], float]
) -> Figure | None:
    wanted = Series(ingress.CHAPTER, subject, "lockstep", f"{move}: {what}")
    values = next((values for series, values in results.values() if series == wanted), [])
    return Figure(of(values), len(values)) if values else None


def put_chapter(page: Path, heading: str, chapter: Sequence[str]) -> None:
    """Replace a chapter of a page that was written before; nothing else of it changes."""
    before, found, rest = page.read_text().partition(f"\n{heading}\n")
    _, more, after = rest.partition("\n## ") if found else ("", "", "")
    lines = "\n".join(chapter).rstrip()
    page.write_text(f"{before.rstrip()}\n\n{lines}\n" + (f"\n## {after}" if more else ""))


def _of(figure: Figure | None, floor: Figure | None) -> str:
    if figure is None:
        return ABSENT
    times = f"{number(figure.value / floor.value)} x, " if floor and floor.value else ""
    return f"{number(figure.value)} s ({times}n={figure.n})"


def _storing(results: Results, heading: str, subject: str) -> Iterator[str]:
    def figure(who: str, what: str) -> Figure | None:
        return results.figure(Series(storing.CHAPTER, subject, who, what))

    present = [who for who in (*PEERS, *OURS) if figure(who, storing.FIRST)]
    yield f"## {heading}"
    yield ""
    head = ["", "first capture", "next", "restore", "in place"]
    head += ["kept after 1", "2", "3 releases", "peak memory", "CPU", "n"]
    rows = []
    for who in present:
        peaks = [figure(who, f"{storing.MEMORY} {step}") for step in STEPS]
        cpu = [figure(who, f"{storing.CPU} {step}") for step in STEPS]
        first = figure(who, storing.FIRST)
        rows.append(
            [
                _label(results, who),
                *(_seconds(figure(who, step)) for step in STEPS),
                *(_mib(figure(who, storing.STORE.format(n))) for n in (1, 2, 3)),
                _mib(max((f for f in peaks if f), key=lambda f: f.value, default=None)),
                f"{number(sum(f.value for f in cpu if f))} s" if all(cpu) else ABSENT,
                str(first.n) if first else ABSENT,
            ]
        )
    yield from table(head, rows)
    yield ""
    yield f"Times faster than each peer, on {ground_name(results, 'disk')} (bytes: times smaller):"
    yield ""
    kept = storing.STORE.format(3)
    compared = []
    for who in [w for w in present if w in PEERS]:
        cells = [_times(figure(who, what), figure("lockstep", what)) for what in (*STEPS, kept)]
        compared.append([who, *cells])
    yield from table(["", *head[1:5], "3 releases"], compared)
    yield ""
    written, read = figure(storing.DISK, storing.WRITTEN), figure(storing.DISK, storing.READ)
    if written and read:
        yield (
            f"The floor: {storing.DISK} takes {number(written.value)} s to write as many bytes as "
            f"a restore does until they are durable, and {number(read.value)} s to read them "
            f"(n={written.n}). Nobody who writes a whole folder, or reads one, can be faster here."
        )
        yield ""


THROUGH = "## Through the helper container"


def through_the_helper(results: Results) -> Iterator[str]:
    """Both ways, and what the way through a container costs, with its own date: it can be measured
    alone."""
    part = results.parts.get(helping.CHAPTER)
    subject = largest(results, helping.CHAPTER, "postgres-")
    if part is None or subject is None:
        return
    ways = [
        [results.figure(Series(helping.CHAPTER, subject, who, what)) for what in helping.STEPS]
        for who in helping.WHO.values()
    ]
    yield THROUGH
    yield ""
    yield (
        f"Measured on {part['date']} at commit {part['commit']} (`python -m bench --only helper`): "
        f"{title(subject)}, at rest, as root works on it and as a user without root does, whose "
        "helper container is started anew for each step."
    )
    yield ""
    rows = [[who, *map(_seconds, way)] for who, way in zip(helping.WHO.values(), ways, strict=True)]
    rows.append(["times as long", *(_times(far, near) for near, far in zip(*ways, strict=True))])
    yield from table(["", "fork", "first capture", "restore"], rows)
    yield ""


def _times(theirs: Figure | None, ours: Figure | None) -> str:
    if theirs is None or ours is None or not ours.value:
        return ABSENT
    return f"{'> ' if theirs.at_least else ''}{number(theirs.value / ours.value)}"


def _seconds(figure: Figure | None) -> str:
    if figure is None:
        return ABSENT
    return f"{'> ' if figure.at_least else ''}{number(figure.value)} s"


def _mib(figure: Figure | None) -> str:
    return ABSENT if figure is None else f"{number(figure.value / MIB)} MiB"


def _label(results: Results, who: str) -> str:
    name, _, place = who.partition(" on ")
    if name != "lockstep":
        return who
    return f"**lockstep**, {ground_name(results, place or 'disk')}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table whose first column is text and whose others are figures."""
    yield f"| {' | '.join(head)} |"
    yield f"| --- |{' ---: |' * (len(head) - 1)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _method(
    machine: dict[str, str], facts: dict[str, object], parts: dict[str, dict[str, object]]
) -> Iterator[str]:
    versions = facts.get("versions", {})
    peers = ", ".join(f"{k} {v}" for k, v in versions.items()) if isinstance(versions, dict) else ""
    cold = "emptied" if facts.get("cold") else "left as it is"
    yield "## How it was measured"
    yield ""
    yield (
        f"- Machine: {', '.join(f'{key} {value}' for key, value in machine.items())}. "
        "XFS and btrfs lie in images on that disk, mounted through loop devices with direct I/O; "
        "so does, for the many small files, a file system of the disk's own kind."
    )
    yield f"- Peers: {peers}."
    yield (
        "- Side by side: in each round every tool captures the same folder, which is changed in "
        "place by 2 % between the releases, then each brings the last release back. What came "
        "back was compared with what was there."
    )
    yield (
        f"- Page cache: {cold} before each capture and restore, for all tools alike; around a "
        "stop it is as the running database leaves it."
    )
    yield (
        "- Peers as people use them: `tar czf` (`S` for the sparse file) and `cp -a`; restic with "
        "its default compression and cache; borg with lz4 and no encryption, "
        "for the sparse file with `--sparse` and 4 MiB blocks. None of them removes what is too "
        "much, so their folder is emptied before a restore in place, which counts. All are "
        "measured until the result is on the disk: a step of a peer is followed by a sync of "
        "its file system."
    )
    yield (
        "- CPU: of the first and next capture and both restores together. Memory: the highest of "
        "any of these steps, all processes of a tool together. Bytes: as `du` counts."
    )
    yield (
        "- A run has to end in time: what takes long gets fewer rounds (its n says so); `>` means "
        "that it was ended at its limit of half a minute."
    )
    yield (
        "- What this disk gives: `cp -a` with the sync after it reads and writes every byte once, "
        "keeps no history and checks nothing. The disk alone: one new file written in order and "
        "past the page cache, with room made for it first and two pieces of 4 MiB under way; all "
        "files of the folder read in order (`python -m bench.floor`), in the same rounds."
    )
    if len({(part["date"], part["commit"]) for part in parts.values()}) > 1:
        told = (f"{name} {part['date']} ({part['commit']})" for name, part in parts.items())
        yield f"- Measured at different times: {', '.join(told)}."
    yield (
        "- Service stopped: `lockstep up` and `lockstep rollback --yes` as typed, on a compose "
        "project of a PostgreSQL and a web service that answers from it; the floor is `docker "
        "stop` and `docker start` of its two containers. On XFS and btrfs a second Docker daemon "
        "has all its data there."
    )
