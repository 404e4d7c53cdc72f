"""What people and their tools do to a store's files, tried against the command."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from blake3 import blake3

from snapshots.compare import tree_equal
from snapshots.store import Store
from tests.cli.test_alone import Command, command

__all__ = ["command"]

KEEPS_CAPTURING = """
import sys
from pathlib import Path
from snapshots.capture import capture
from snapshots.store import Store
store, folder = Store.open(Path(sys.argv[1])), Path(sys.argv[2])
print("ready", flush=True)
for number in range(10_000):
    (folder / "index").write_bytes(b"%d" % number * 50_000)
    capture(folder, store, dataset="wiki")
"""


def store_of(command: Command) -> Path:
    return command.folder / "store"


def use(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCKSTEP_STORE", str(store))


def damages(command: Command) -> list[dict[str, object]]:
    """What `verify --read-data` finds, by its exit code as well."""
    return list(command.run("verify", "--read-data", "--json", code=7).json()["damages"])


def insist_on_sound(command: Command) -> None:
    assert command.run("verify", "--read-data", "--json").json()["sound"] is True


def listed(command: Command) -> set[str]:
    found = command.run("snapshot", "list", "--json").json()["snapshots"]
    return {snapshot["snapshot"] for snapshot in found}


def largest_pack(store: Path) -> Path:
    return max((store / "packs").iterdir(), key=lambda path: path.stat().st_size)


def test_attack_data_the_store_is_copied_with_cp_while_a_capture_runs(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`cp -a` of the store while captures run: what was there when it began is whole in the copy,
    what came meanwhile is whole, or named and refused; in the documented order all is whole."""
    first = command.create("./wiki")
    shutil.copytree(command.folder / "wiki", command.folder / "then")
    busy = subprocess.Popen(
        [
            sys.executable,
            "-c",
            KEEPS_CAPTURING,
            str(store_of(command)),
            str(command.folder / "wiki"),
        ],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    try:
        assert busy.stdout is not None
        assert busy.stdout.readline() == b"ready\n"
        while len(list((store_of(command) / "snapshots").glob("*.json"))) < 4:
            assert busy.poll() is None
        copy, ordered = command.folder / "copy", command.folder / "ordered"
        # A file that is renamed meanwhile is none of its faults.
        subprocess.run(["cp", "-a", str(store_of(command)), str(copy)], capture_output=True)
        ordered.mkdir(mode=0o700)
        for part in ("format", "lock", "snapshots", "trees", "packs", "hints"):
            subprocess.run(
                ["cp", "-a", str(store_of(command) / part), str(ordered)], capture_output=True
            )
    finally:
        busy.kill()
        busy.wait()
        assert busy.stdout is not None
        busy.stdout.close()
    use(copy, monkeypatch)
    assert first in listed(command)
    command.run("snapshot", "restore", first, "./again")
    assert tree_equal(command.folder / "then", command.folder / "again") == []
    report = Store(copy)
    ran = command.run("verify", "--read-data", "--json", code=None)
    broken = {s for damage in ran.json()["damages"] for s in damage["snapshots"]}
    assert first not in broken
    for snapshot in set(report.ids()) - broken:
        command.run("snapshot", "restore", snapshot, f"./of-{snapshot}")
    for snapshot in broken:
        command.run("snapshot", "restore", snapshot, f"./of-{snapshot}", code=None)
        assert not (command.folder / f"of-{snapshot}").exists()
    use(ordered, monkeypatch)
    assert len(listed(command)) > 1
    insist_on_sound(command)


def test_attack_data_a_pack_is_replaced_by_another_under_its_name(command: Command) -> None:
    """A pack gets the content of an older pack and keeps its name: found without reading data,
    nothing is restored from it, and a repair takes the content from the folder that has it."""
    old = command.create("./wiki")
    (older,) = (store_of(command) / "packs").iterdir()
    (command.folder / "wiki" / "index").write_bytes(os.urandom(90_000))
    new = command.create("./wiki")
    (newer,) = set((store_of(command) / "packs").iterdir()) - {older}
    shutil.copyfile(older, newer)
    found = command.run("verify", "--json", code=7).json()["damages"]
    assert new in {snapshot for damage in found for snapshot in damage["snapshots"]}
    assert "altered" in json.dumps(found)
    command.run("snapshot", "restore", new, "./again", code=7)
    assert not (command.folder / "again").exists()
    command.run("snapshot", "restore", old, "./then")
    assert command.create("./wiki") not in (old, new)
    command.run("snapshot", "restore", new, "./again")
    assert tree_equal(command.folder / "wiki", command.folder / "again") == []


def test_attack_data_one_pack_is_removed(command: Command) -> None:
    """`rm` of one pack: verify names the snapshots and files that need it, others restore, and the
    same folder captured again makes them whole."""
    first = command.create("./wiki")
    (command.folder / "other").mkdir()
    (command.folder / "other" / "file").write_bytes(os.urandom(500_000))
    second = command.create("./other")
    largest_pack(store_of(command)).unlink()
    found = damages(command)
    assert {s for d in found for s in d["snapshots"]} == {second}  # type: ignore[attr-defined]
    assert found[0]["files"] == ["file"]
    command.run("snapshot", "restore", second, "./again", code=7)
    assert not (command.folder / "again").exists()
    command.run("snapshot", "restore", first, "./again")
    command.create("./other")
    insist_on_sound(command)


def test_attack_data_two_stores_are_merged_by_rsync(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two stores are copied into one folder, as `rsync -a` does it: every snapshot of both is there
    and whole, and pruning one set leaves the other."""
    first = command.create("./wiki")
    mine = store_of(command)
    use(command.folder / "theirs", monkeypatch)
    (command.folder / "wiki" / "pages" / "home").write_text("theirs\n")
    second = command.create("./wiki")
    shutil.copytree(command.folder / "theirs", mine, dirs_exist_ok=True)
    use(mine, monkeypatch)
    assert listed(command) == {first, second}
    insist_on_sound(command)
    command.run("snapshot", "rm", first, "--yes")
    insist_on_sound(command)
    command.run("snapshot", "restore", second, "./again")
    assert tree_equal(command.folder / "wiki", command.folder / "again") == []


def test_attack_data_the_store_is_moved_and_linked_to(command: Command) -> None:
    """The store is moved to another disk and a symbolic link left in its place: all goes on. When
    the link leads nowhere, a restore says so, and so does a capture: no empty store is begun."""
    first = command.create("./wiki")
    moved = command.folder / "elsewhere" / "moved"
    moved.parent.mkdir(mode=0o700)
    shutil.move(store_of(command), moved)
    store_of(command).symlink_to(moved)
    second = command.create("./wiki")
    assert listed(command) == {first, second}
    command.run("snapshot", "restore", first, "./again")
    assert tree_equal(command.folder / "wiki", command.folder / "again") == []
    shutil.move(moved, command.folder / "kept")
    said = command.run("snapshot", "restore", first, "./once-more", code=None)
    assert said.code != 0
    assert "store" in said.err
    said = command.run("snapshot", "create", "./wiki", code=None)
    assert said.code != 0, said.text
    assert str(store_of(command)) in said.err
    assert not moved.exists()


def test_attack_data_a_record_is_edited_to_name_other_data(command: Command) -> None:
    """A record is edited to name the tree of another snapshot: under its own name it is damaged;
    renamed so that it is sound it is another snapshot, and the first one is missing."""
    first = command.create("./wiki")
    (command.folder / "wiki" / "pages" / "home").write_text("other\n")
    second = command.create("./wiki")
    records = store_of(command) / "snapshots"
    path = records / f"{first}.json"
    body = json.loads(path.read_bytes())
    body["root"] = json.loads((records / f"{second}.json").read_bytes())["root"]
    forged = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    path.write_bytes(forged)
    assert "altered" in json.dumps(damages(command))
    assert "altered" in command.run("snapshot", "restore", first, "./again", code=7).err
    path.rename(records / f"{blake3(forged).hexdigest()[:32]}.json")
    said = command.run("snapshot", "restore", first, "./again", code=None)
    assert said.code != 0
    assert f"no snapshot {first}" in said.err or first[:8] in said.err
    assert not (command.folder / "again").exists()


def test_attack_data_a_copy_of_hard_links_is_kept_and_the_store_pruned(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`cp -al` of the store as a backup, then prune, capture and repair: no file of a store is ever
    changed in place, so the copy is whole, with what was pruned."""
    first = command.create("./wiki")
    copy = command.folder / "copy"
    subprocess.run(["cp", "-al", str(store_of(command)), str(copy)], check=True)
    (command.folder / "wiki" / "index").write_bytes(random.Random(1).randbytes(100_000))
    second = command.create("./wiki")
    command.run("snapshot", "rm", first, "--yes")
    command.run("repair", "--json")
    assert listed(command) == {second}
    use(copy, monkeypatch)
    assert listed(command) == {first}
    insist_on_sound(command)


def test_attack_data_hints_are_exchanged(command: Command) -> None:
    """The hints of two snapshots are swapped, then filled with anything: the next capture reads
    everything and is right."""
    ids = [command.create("./wiki")]
    (command.folder / "wiki" / "index").write_bytes(os.urandom(100_000))
    ids.append(command.create("./wiki"))
    a, b = ((store_of(command) / "hints" / f"{snapshot}.hints") for snapshot in ids)
    bodies = a.read_bytes(), b.read_bytes()
    a.write_bytes(bodies[1])
    b.write_bytes(bodies[0])
    for content in (None, b"", os.urandom(500)):
        if content is not None:
            b.write_bytes(content)
        (command.folder / "wiki" / "pages" / "home").write_text(f"{content!r}\n")
        made = command.create("./wiki")
        shutil.rmtree(command.folder / "again", ignore_errors=True)
        command.run("snapshot", "restore", made, "./again")
        assert tree_equal(command.folder / "wiki", command.folder / "again") == []


def test_attack_data_drafts_and_strange_files_are_put_into_the_store(command: Command) -> None:
    """An editor's backup, a folder, a copied pack and record under other names are put into the
    store's folders: nothing of it is believed, and verify, list and restore go on."""
    first = command.create("./wiki")
    store = store_of(command)
    shutil.copy(largest_pack(store), store / "packs" / "copy of a pack.pack")
    shutil.copy(largest_pack(store), store / "packs" / f"{'0' * 64}.pack")
    shutil.copy(store / "snapshots" / f"{first}.json", store / "snapshots" / f"{first}.json~")
    shutil.copy(store / "snapshots" / f"{first}.json", store / "snapshots" / f"{'0' * 32}.json")
    (store / "packs" / "folder").mkdir()
    (store / "README").write_text("do not touch\n")
    found = damages(command)
    assert {s for d in found for s in d["snapshots"]} == {"0" * 32}  # type: ignore[attr-defined]
    command.run("snapshot", "restore", first, "./again")
    assert tree_equal(command.folder / "wiki", command.folder / "again") == []
    command.create("./wiki")
