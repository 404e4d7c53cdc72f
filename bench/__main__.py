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

from bench import machine, tools
from bench.errors import BenchError
from bench.images import mark
from bench.machine import ask
from bench.report import PAGE, write
from bench.results import Results
from bench.shares import Share, share
from bench.sizes import Sizes
from bench.stopping import GROUNDS, LOG, Stopping
from bench.storing import Storing
from bench.subjects import FILES, GIB, SPARSE_BYTES, SPARSE_DATA, Subject, postgres
from bench.subjects import small_files as files
from bench.subjects import sparse as sparse_file
from bench.sweeping import sweep

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = ("storing", "sizes", "stopping")
SUBJECTS = ("postgres", "files", "sparse")
DISK = 40  # GiB at scale 1: states, what every tool keeps of them, and the images


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
        "--minutes", type=float, default=35, help="about how long a whole run may take (35)"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full sizes (1.0)")
    parser.add_argument("--only", default="", help="chapters or subjects, with commas")
    parser.add_argument("--resume", action="store_true", help="go on with the last run")
    parser.add_argument("--warm", action="store_true", help="leave the page cache as it is")
    parser.add_argument("--folder", type=Path, default=ROOT / ".bench", help="where it works")
    parser.add_argument("--report", type=Path, help="where the page goes (docs/ for a full run)")
    options = parser.parse_args(argv)
    options.folder = options.folder.resolve()
    options.only = frozenset(filter(None, options.only.split(",")))
    unknown = options.only - {*CHAPTERS, *SUBJECTS}
    if unknown or options.rounds < 1 or options.scale <= 0:
        parser.error(f"--only takes {', '.join((*CHAPTERS, *SUBJECTS))}; numbers are above 0")
    return options


def _results(options: argparse.Namespace) -> Results:
    path = options.folder / "results.jsonl"
    commit = _commit()
    if options.resume:
        earlier = Results.load(path)
        if earlier.facts["commit"] != commit:
            raise BenchError(
                f"the earlier run measured {earlier.facts['commit']}, and this is {commit}: begin "
                "anew, without --resume"
            )
        return earlier
    (options.folder / LOG).unlink(missing_ok=True)
    facts = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit,
        "scale": options.scale,
        "rounds": options.rounds,
        "machine": machine.description(options.folder),
        "versions": tools.versions(),
        "cold": not options.warm,
    }
    return Results.begin(path, facts)


def _commit() -> str:
    with suppress(BenchError):
        return ask("git", "-C", ROOT, "describe", "--always", "--dirty", "--exclude", "*")
    return "unknown"


def _place_of_report(options: argparse.Namespace, results: Results) -> Path:
    """A quick look does not replace the figures of a whole run."""
    whole = results.facts["scale"] == 1.0 and results.facts["rounds"] >= 5 and not options.only
    return options.report or (ROOT / "docs" if whole else options.folder)


class Bench:
    """One whole run."""

    def __init__(self, options: argparse.Namespace, results: Results, say: Log) -> None:
        self.results, self.say = results, say
        self.only, self.rounds = options.only, results.facts["rounds"]
        self.minutes: float = options.minutes
        self.folder: Path = options.folder
        self.owner = mark(options.folder)
        self.scale = float(results.facts["scale"])

    def carry_out(self) -> list[str]:
        """Every part that is wanted; returns what failed. One that does keeps no other back."""
        failed = []
        for part, measure in self._parts():
            try:
                measure()
            except BenchError as error:
                self.say(f"{part}: {error}")
                failed.append(part)
                sweep(self.folder)
        return failed

    def _parts(self) -> Iterator[tuple[str, Callable[[], None]]]:
        """Name and work of each part."""
        if self._wanted("storing"):
            for subject in self._subjects():
                part = f"storing {subject.kind}"
                storing = Storing(subject, self.results, self.folder, self.say)
                yield part, partial(storing.carry_out, self.rounds, self._share(part))
        if not self._wanted("postgres"):
            return
        if self._wanted("sizes"):
            small, large = self._postgres(0.25), self._postgres(1.0)
            sizes = Sizes(small, large, self.results, self.folder, self.say)
            yield "sizes", partial(sizes.carry_out, self.rounds, self._share("sizes"))
        if self._wanted("stopping"):
            stopping = Stopping(
                self._postgres(1.0),
                round(2 * GIB * self.scale),
                self.results,
                self.folder,
                self.owner,
                self.say,
            )
            for kind in GROUNDS:
                part = f"stopping {kind}"
                yield part, partial(stopping.carry_out, kind, self.rounds, self._share(part))

    def _share(self, part: str) -> Share:
        return share(self.minutes, part)

    def _wanted(self, name: str) -> bool:
        """Nothing named of a kind (chapters, subjects) means all of that kind."""
        kind = CHAPTERS if name in CHAPTERS else SUBJECTS
        named = self.only & set(kind)
        return not named or name in named

    def _subjects(self) -> list[Subject]:
        cache, scale = self.folder / "cache", self.scale
        found = []
        if self._wanted("postgres"):
            found.append(self._postgres(1.0))
        if self._wanted("files"):
            found.append(files(cache, max(200, round(FILES * scale))))
        if self._wanted("sparse"):
            size = max(GIB, round(SPARSE_BYTES * scale / GIB) * GIB)
            found.append(sparse_file(cache, size, round(SPARSE_DATA * min(1.0, scale * 4))))
        return found

    def _postgres(self, part: float) -> Subject:
        return postgres(self.folder / "cache", round(2 * GIB * self.scale * part), self.owner)


if __name__ == "__main__":
    sys.exit(main())
