"""The bench itself: it measures real commands, and a tiny run ends with a page."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from bench import floor, grounds, prober
from bench.errors import BenchError, TooSlow
from bench.measure import Command, run
from bench.peers import COPY, OURS, TAR, Tool
from bench.results import Results, Series
from bench.subjects import small_files, sparse
from bench.work import bring, last_lines

ROOT = Path(__file__).resolve().parent.parent.parent
NEEDED = ("restic", "borg", "mkfs.xfs", "mkfs.btrfs")


def python(text: str) -> Command:
    return Command([sys.executable, "-c", text])


def test_a_command_is_measured_with_its_children() -> None:
    inner = "import time; block = bytearray(64 << 20); time.sleep(0.3)"
    spent = run(
        python(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])")
    )
    assert spent.seconds >= 0.3
    assert 64 << 20 < spent.peak_bytes < 256 << 20
    busy = run(python("import time\nwhile time.process_time() < 0.3: pass"))
    assert busy.cpu_seconds >= 0.3


def test_a_small_command_is_not_counted_with_the_memory_of_the_bench() -> None:
    ballast = bytearray(200 << 20)
    assert run(Command(["sleep", "0.2"])).peak_bytes < 32 << 20
    assert ballast


def test_a_command_that_fails_or_hangs_is_named() -> None:
    with pytest.raises(BenchError, match="ended with 3: nothing works"):
        run(Command(["sh", "-c", "echo nothing works; exit 3"]))
    with pytest.raises(TooSlow, match="was ended after"):
        run(Command(["sleep", "60"]), limit=0.3)


def test_the_disk_alone_writes_and_reads_all(tmp_path: Path) -> None:
    floor.write(tmp_path / "file", 9 << 20)
    assert (tmp_path / "file").stat().st_size == 12 << 20  # whole pieces
    assert (tmp_path / "file").stat().st_blocks * 512 >= 12 << 20
    assert floor.main(["read", str(tmp_path)]) == 0
    assert floor.main(["neither"]) == 2
    with pytest.raises(FileExistsError):
        floor.write(tmp_path / "file", 1)


def test_folders_are_brought_to_a_state_in_place(tmp_path: Path) -> None:
    subject = small_files(tmp_path / "cache", 400)
    folder = tmp_path / "folder"
    for number in (1, 2, 3, 1):
        bring(subject.state(number), folder)
        assert _same(subject.state(number), folder)
    assert bring(subject.state(1), folder) == 0
    kept = folder / "0000" / "0.txt"
    inode = kept.stat().st_ino
    kept.write_bytes(b"other")
    assert bring(subject.state(1), folder) == 1
    assert kept.stat().st_ino == inode


def test_states_differ_by_about_two_percent(tmp_path: Path) -> None:
    subject = small_files(tmp_path, 1000)
    done = subprocess.run(
        ["diff", "--recursive", "--brief", str(subject.state(1)), str(subject.state(2))],
        capture_output=True,
        text=True,
    )
    assert 10 <= len(done.stdout.splitlines()) <= 25


def test_a_sparse_file_keeps_its_holes(tmp_path: Path) -> None:
    subject = sparse(tmp_path / "cache", 64 << 20, 4 << 20)
    folder = tmp_path / "folder"
    for number in (1, 2):
        bring(subject.state(number), folder)
        assert _same(subject.state(number), folder)
    assert (folder / "disk.img").stat().st_blocks * 512 < 8 << 20


@pytest.mark.parametrize("tool", [TAR, COPY, OURS], ids=lambda tool: tool.name)
def test_tools_bring_the_last_release_back(tmp_path: Path, tool: Tool) -> None:
    subject = small_files(tmp_path / "cache", 400)
    kept, folder, target = (tmp_path / name for name in ("kept", "folder", "target"))
    kept.mkdir()
    for number in (1, 2):
        bring(subject.state(number), folder)
        run(tool.capture(kept, folder, number))
    run(tool.restore(kept, 2, target))
    assert _same(subject.state(2), target)
    bring(subject.state(1), target)
    (target / "extra").write_text("stale")
    run(tool.replace(kept, 2, target))
    assert _same(subject.state(2), target)


def test_a_fork_is_made_as_a_process(tmp_path: Path) -> None:
    subject = small_files(tmp_path / "cache", 400)
    run(OURS.fork(subject.state(1), tmp_path / "target"))
    assert _same(subject.state(1), tmp_path / "target")


def _same(one: Path, other: Path) -> bool:
    return (
        subprocess.run(["diff", "-rq", str(one), str(other)], capture_output=True).returncode == 0
    )


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def service() -> Iterator[HTTPServer]:
    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=[0.02])
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_prober_sees_a_service_go(service: HTTPServer, tmp_path: Path) -> None:
    answers = tmp_path / "answers.txt"
    url = f"http://127.0.0.1:{service.server_port}/"
    argv = [sys.executable, "-m", "bench.prober", url, str(answers)]
    process = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE)
    try:
        _until(lambda: sum(a.good for a in prober.read(answers)) >= 10)
        service.shutdown()
        service.server_close()
        _until(lambda: any(not a.good for a in prober.read(answers)))
    finally:
        process.communicate(timeout=30)
    assert process.returncode == 0


def _until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_tiny_run_ends_with_a_page(tmp_path: Path) -> None:
    places = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    missing = [name for name in NEEDED if shutil.which(name, path=places) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"needs root and {', '.join(missing) or 'nothing else'}; `make bench` installs")
    argv = [sys.executable, "-m", "bench", "--rounds", "1", "--scale", "0.002", "--warm"]
    argv += ["--only", "storing-files", "--folder", str(tmp_path / "bench")]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "bench" / "benchmarks.md").read_text()
    assert "## 200 small files" in page
    for who in ("tar czf", "cp -a", "restic", "borg", "**lockstep**, XFS", "**lockstep**, btrfs"):
        (line,) = [x for x in page.splitlines() if x.startswith(f"| {who} |") and " MiB" in x]
        assert line.endswith("| 1 |")
        assert "| - |" not in line
    results = Results.load(tmp_path / "bench" / "results.jsonl")
    figure = results.figure(Series("storing", "files-200", "lockstep", "seconds restore"))
    assert figure is not None
    assert figure.value > 0
    assert sorted(os.listdir(tmp_path / "bench")) == [
        "benchmarks.md", "benchmarks.svg", "cache", "lock", "progress.log", "results.jsonl",
    ]  # fmt: skip


def test_a_mount_that_is_still_in_use_is_freed(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    with grounds.looped("ext4", tmp_path / "image", 1) as ground:
        users = [
            subprocess.Popen(["sleep", "600"], cwd=ground.path),
            subprocess.Popen(["sleep", "600"], stdout=(ground.path / "said").open("w")),
        ]
        assert set(grounds.users_of(ground.path)) >= {user.pid for user in users}
    assert [user.wait(20) for user in users] == [-signal.SIGKILL, -signal.SIGKILL]
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("text", "size", "lines"),
    [("", 9, []), ("a\nb\n", 9, ["a", "b"]), ("a\nb\nc", 9, ["a", "b"]), ("aaa\nb\n", 4, ["b"])],
)
def test_the_last_lines_of_a_file_are_whole(
    tmp_path: Path, text: str, size: int, lines: list[str]
) -> None:
    path = tmp_path / "file"
    path.write_text(text)
    assert last_lines(path, size) == lines
