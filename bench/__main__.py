"""The command line: which chapters, how large, how often; then the page that tells the result."""

from __future__ import annotations

import argparse
import datetime
import fcntl
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from bench import catalog, ingress, machine, tools
from bench.errors import BenchError
from bench.helping import Helping
from bench.images import mark
from bench.machine import ask
from bench.report import (
    BEHIND,
    PAGE,
    THROUGH,
    behind_the_ingress,
    put_chapter,
    quick_look,
    through_the_helper,
    write,
)
from bench.results import Results
from bench.shares import PARTS, Budget, Share
from bench.sizes import Sizes
from bench.stopping import GROUNDS, LOG, Stopping
from bench.storing import Storing
from bench.subjects import FILES, GIB, SPARSE_BYTES, SPARSE_DATA, Subject, postgres
from bench.subjects import small_files as files
from bench.subjects import sparse as sparse_file
from bench.sweeping import sweep

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = ("storing", "sizes", "helper", "catalog", "ingress", "stopping")
DISK = 40  # GiB at scale 1: states, what every tool keeps of them, and the images

DOCS = ROOT / "docs"
ALONE = {"helper": (THROUGH, through_the_helper), "ingress": (BEHIND, behind_the_ingress)}
"""Parts without a peer: their chapters can be measured, and put into the page, apart."""


class Log:
    """Progress on the terminal and in a file, with the minutes since the start."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._began = path, time.monotonic()
        with path.open("a") as file:
            file.write(f"-- {datetime.datetime.now().isoformat(timespec='seconds')}\n")

    def __call__(self, text: str) -> None:
        seconds = time.monotonic() - self._began
        line = f"{int(seconds // 60):3}:{int(seconds % 60):02} {text}"
        print(line, flush=True)
        with self._path.open("a") as file:
            file.write(line + "\n")


def main(argv: list[str] | None = None) -> int:
    options = _options(argv)
    say = Log(options.folder / "progress.log")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with _alone(options.folder):
            tools.ensure()
            sweep(options.folder)
            _insist_on_space(options)
            try:
                results = _results(options)
                failed = Bench(options, results, say).carry_out()
                write(results, folder := _place_of_report(options, results))
                say(f"written: {folder / PAGE}")
                for part in _alone_in_docs(options, results, folder):
                    heading, chapter = ALONE[part]
                    put_chapter(DOCS / PAGE, heading, list(chapter(results)))
                    say(f"written: {DOCS / PAGE}, {heading.strip('# ')}")
                if failed:
                    raise BenchError(f"not measured: {', '.join(failed)}; --resume tries again")
            finally:
                sweep(options.folder)
    except BenchError as error:
        say(f"bench: {error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; `--resume` goes on with it")
        return 130
    return 0


def _insist_on_space(options: argparse.Namespace) -> None:
    """Raises BenchError where there is too little room for a run of this size."""
    needed = round(max(2, DISK * options.scale)) * GIB
    if (cache := options.folder / "cache").is_dir():  # what was built by a run before
        needed = max(0, needed - int(ask("du", "-s", "-B1", cache, seconds=600).split()[0]))
    if (free := machine.free_bytes(options.folder)) < needed:
        raise BenchError(
            f"{options.folder} has {free // GIB} GiB free and {needed // GIB} are needed: name "
            "another --folder, or a smaller --scale"
        )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Raises BenchError while another bench works in this folder."""
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BenchError(f"another bench works in {folder}") from None
        yield


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="medians of how many (5)")
    parser.add_argument(
        "--minutes", type=float, default=45, help="about how long a whole run may take (45)"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full sizes (1.0)")
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="PART",
        help="measure these anew and keep the last run's figures of the others: "
        f"{', '.join(CHAPTERS)}, or one of {', '.join(PARTS)}",
    )
    parser.add_argument("--resume", action="store_true", help="go on with a run that was killed")
    parser.add_argument("--warm", action="store_true", help="leave the page cache as it is")
    parser.add_argument("--folder", type=Path, default=ROOT / ".bench", help="where it works")
    parser.add_argument("--report", type=Path, help="where the page goes (docs/ for a full run)")
    options = parser.parse_args(argv)
    options.folder = options.folder.resolve()
    named = {name for words in options.only for name in words.split(",") if name}
    if named - {*CHAPTERS, *PARTS} or options.rounds < 1 or options.scale <= 0:
        parser.error(f"--only takes {', '.join((*CHAPTERS, *PARTS))}; numbers are above 0")
    options.parts = [part for part in PARTS if not named or {part, part.partition("-")[0]} & named]
    return options


def _results(options: argparse.Namespace) -> Results:
    """A new file, or the last run's when it is gone on with or parts of it are measured anew."""
    path = options.folder / "results.jsonl"
    facts = {
        "scale": options.scale,
        "machine": machine.description(options.folder),
        "versions": tools.versions(),
        "cold": not options.warm,
    }
    if options.resume or (options.only and path.exists()):
        earlier = Results.load(path)
        if other := [key for key, value in facts.items() if earlier.facts.get(key) != value]:
            raise BenchError(
                f"the last run had another {' and '.join(other)}: begin anew, without --resume and "
                "--only, or with another --folder"
            )
        return earlier
    (options.folder / LOG).unlink(missing_ok=True)
    return Results.begin(path, facts)


def _commit() -> str:
    with suppress(BenchError):
        return ask("git", "-C", ROOT, "describe", "--always", "--dirty", "--exclude", "*")
    return "unknown"


def _place_of_report(options: argparse.Namespace, results: Results) -> Path:
    """A quick look does not replace the figures of a whole run."""
    wanted = set(PARTS) - {"helper"}  # beside the point: it has no goal and no peer
    whole = options.scale == 1.0 and wanted <= results.ended and not quick_look(results)
    return options.report or (DOCS if whole else options.folder)


def _alone_in_docs(options: argparse.Namespace, results: Results, folder: Path) -> list[str]:
    """Parts whose chapters, which need no peer, go into the page without the rest."""
    if options.scale != 1.0 or folder != options.folder or options.report:
        return []
    return [part for part in ALONE if part in options.parts and part in results.ended]


class Bench:
    """One run."""

    def __init__(self, options: argparse.Namespace, results: Results, say: Log) -> None:
        self.results, self.say = results, say
        self.parts: list[str] = options.parts
        self.rounds, self.resume = options.rounds, options.resume
        self.budget = Budget(options.minutes, self.parts)
        self.folder: Path = options.folder
        self.owner = mark(options.folder)
        self.scale: float = options.scale

    def carry_out(self) -> list[str]:
        """Every part that is wanted; returns what failed. One that does keeps no other back."""
        failed = []
        for part in self.parts:
            share = self.budget.share(part)
            try:
                self._measure(part, share)
            except BenchError as error:
                self.say(f"{part}: {error}")
                failed.append(part)
                sweep(self.folder)
            self.budget.ended(part, share)
        return failed

    def _measure(self, part: str, share: Share) -> None:
        """One part, from its first round or from where it was killed."""
        covers, measure = self._work(part)
        now = {"commit": _commit(), "rounds": self.rounds}
        if self.resume and part in self.results.ended:
            return
        begun = self.results.parts.get(part, {})
        if not self.resume or any(begun.get(key) != value for key, value in now.items()):
            date = datetime.datetime.now(datetime.UTC).date().isoformat()
            self.results.begin_part(part, covers, date=date, **now)
        measure(self.rounds, share)
        self.results.end_part(part)

    def _work(self, part: str) -> tuple[list[tuple[str, str]], Callable[[int, Share], None]]:
        """The chapters and subjects that a part covers, and what measures them."""
        chapter, _, name = part.partition("-")
        common = self.results, self.folder
        if chapter == "storing":
            subject = self._subject(name)
            return [("storing", subject.name)], Storing(subject, *common, self.say).carry_out
        if chapter == "sizes":
            sizes = Sizes(self._postgres(0.25), self._postgres(1.0), *common, self.say)
            return [("sizes", kind) for kind in GROUNDS], sizes.carry_out
        if chapter == "helper":
            small = self._postgres(0.25)
            helping = Helping(small, *common, self.owner, self.say)
            return [("helper", small.name)], helping.carry_out
        if chapter == "catalog":
            subjects = [("catalog", size.name) for size in catalog.SIZES]
            return subjects, catalog.Cataloguing(self.results, self.say).carry_out
        if chapter == "ingress":
            size = round(ingress.SIZE * self.scale)
            behind = ingress.Ingress(self._postgres(0.5), size, *common, self.owner, self.say)
            return [("ingress", behind.subject.name)], behind.carry_out
        size = round(2 * GIB * self.scale)
        stopping = Stopping(self._postgres(1.0), size, *common, self.owner, self.say)
        return [("stopping", name)], partial(stopping.carry_out, name)

    def _subject(self, kind: str) -> Subject:
        cache, scale = self.folder / "cache", self.scale
        if kind == "postgres":
            return self._postgres(1.0)
        if kind == "files":
            return files(cache, max(200, round(FILES * scale)))
        size = max(GIB, round(SPARSE_BYTES * scale / GIB) * GIB)
        return sparse_file(cache, size, round(SPARSE_DATA * min(1.0, scale * 4)))

    def _postgres(self, part: float) -> Subject:
        return postgres(self.folder / "cache", round(2 * GIB * self.scale * part), self.owner)


if __name__ == "__main__":
    sys.exit(main())
