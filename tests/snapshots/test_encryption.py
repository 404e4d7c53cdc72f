"""Encrypted stores: they tell nothing without their passphrase, and everything works with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from blake3 import blake3

from snapshots import encrypting, storekey
from snapshots.capture import capture
from snapshots.compare import tree_equal
from snapshots.encrypting import encrypt
from snapshots.errors import Damaged, SnapshotError, StoreUnusable
from snapshots.repair import repair
from snapshots.restore import restore
from snapshots.store import Store
from snapshots.storekey import WrongKey
from snapshots.verify import verify, verify_all
from tests.failing import Failing
from tests.snapshots.golden.make import is_rdb

PASSPHRASE = "correct horse battery"
CANARY = b"canary-7f3a"
ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def secret(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "secret", passphrase=PASSPHRASE)


def files_of(store: Store) -> dict[str, bytes]:
    return {
        str(path.relative_to(store.path)): path.read_bytes()
        for path in store.path.rglob("*")
        if path.is_file()
    }


def marked(folder: Path) -> Path:
    """A folder whose content, names, links and attributes all have the canary in them."""
    folder.mkdir()
    name = CANARY.decode()
    (folder / name).mkdir()
    (folder / name / "big").write_bytes(CANARY * 30_000)
    (folder / name / "small").write_bytes(CANARY)
    (folder / f"{name}.rdb").write_bytes(os.urandom(200_000) + CANARY)
    (folder / "link").symlink_to(f"/{name}")
    return folder


def test_attack_secrets_reading_an_encrypted_store(tmp_path: Path, secret: Store) -> None:
    """Somebody reads every file of an encrypted store, and looks for hashes of content that he
    knows: neither content, names, tags nor a hash of them is in any file or name."""
    data = marked(tmp_path / "data")
    name = CANARY.decode()
    record = capture(data, secret, dataset=name, tags={name: name}, streams=is_rdb)
    known = {CANARY, record.root.encode(), bytes.fromhex(record.root), blake3(CANARY).digest()}
    known |= {blake3((CANARY * 30_000)[:65536]).digest(), blake3(CANARY).hexdigest().encode()}
    plain = Store.open(tmp_path / "plain")
    capture(data, plain, dataset=name, tags={name: name})
    seen = [found for found in known if any(found in body for body in files_of(plain).values())]
    assert len(seen) >= 4, "the search would find it"
    for file, body in files_of(secret).items():
        for wanted in known:
            assert wanted not in body, file
            assert wanted.decode("latin-1") not in file
    restore(secret, record.id, tmp_path / "back")
    assert tree_equal(data, tmp_path / "back") == []


def test_everything_works_on_an_encrypted_store(
    source: Path, secret: Store, tmp_path: Path
) -> None:
    first = capture(source, secret, dataset="data")
    (source / "more").write_bytes(os.urandom(100_000))
    second = capture(source, secret, dataset="data", parent=first.id)
    again = capture(source, secret, dataset="data", parent=second.id)
    assert again.root == second.root
    size = secret.size()
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", source, copy], check=True, timeout=60)
    capture(copy, secret, dataset="copy")
    assert secret.size() - size < 60_000, "content is stored once"
    reopened = Store.open(secret.path, create=False, passphrase=PASSPHRASE)
    assert verify_all(reopened, None, read_data=True).damages == []
    reopened.sweep([second.id])
    assert reopened.ids() == [second.id]
    restore(reopened, second.id, tmp_path / "back")
    assert tree_equal(source, tmp_path / "back") == []
    assert verify_all(reopened, None, read_data=True).damages == []


def test_a_wrong_passphrase_is_told_apart_from_damage(small: Path, secret: Store) -> None:
    """The message says which it is, and what to do."""
    capture(small, secret, dataset="data")
    with pytest.raises(WrongKey, match="not damaged"):
        Store.open(secret.path, create=False, passphrase="another passphrase")
    with pytest.raises(WrongKey, match="no passphrase was given"):
        Store.open(secret.path, create=False)
    key = secret.path / "key"
    good = key.read_bytes()
    key.write_bytes(good[:50] + bytes([good[50] ^ 1]) + good[51:])
    opened = Store.open(secret.path, create=False, passphrase=PASSPHRASE)
    (damage,) = verify_all(opened, None, read_data=True).damages
    assert "key" in damage.reason
    assert repair(opened, {}).mended == ["the store's key, from its copy"]
    assert key.read_bytes() == good
    for name in storekey.FILES:
        (secret.path / name).write_bytes(good[:-20])
    with pytest.raises(Damaged, match=r"put .* back"):
        Store.open(secret.path, create=False, passphrase=PASSPHRASE)


def test_a_plain_store_is_not_taken_for_an_encrypted_one(small: Path, store: Store) -> None:
    capture(small, store, dataset="data")
    with pytest.raises(StoreUnusable, match="lockstep encrypt"):
        Store.open(store.path, passphrase=PASSPHRASE)


def test_every_altered_file_is_found(small: Path, secret: Store, tmp_path: Path) -> None:
    """One bit anywhere in what is encrypted: nothing of it is restored as if it were whole."""
    record = capture(small, secret, dataset="data")
    for path in sorted(secret.path.rglob("*")):
        if not path.is_file() or path.parent == secret.path or path.parent == secret.hints:
            continue
        good = path.read_bytes()
        for at in {0, 9, len(good) // 3, len(good) // 2, len(good) - 60, len(good) - 1}:
            bad = bytearray(good)
            bad[at] ^= 4
            path.write_bytes(bad)
            assert verify(secret, record.id, read_data=True), (path, at)
            with pytest.raises(Damaged):
                restore(secret, record.id, tmp_path / f"target-{at}-{path.name[:8]}")
        path.write_bytes(good)
    assert verify(secret, record.id, read_data=True) == []


@pytest.mark.parametrize("where", ["packs", "trees", "snapshots"])
def test_damage_of_an_encrypted_store_is_repaired(where: str, small: Path, secret: Store) -> None:
    record = capture(small, secret, dataset="data")
    path = max((secret.path / where).iterdir(), key=lambda path: path.stat().st_size)
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)
    assert verify(secret, record.id, read_data=True)
    assert repair(secret, {"data": [small]}).unmended == []
    assert verify_all(secret, None, read_data=True).damages == []


def test_a_damaged_index_loses_nothing_of_an_encrypted_pack(small: Path, secret: Store) -> None:
    """One bit of it: what the other entries name is had from the pack itself, without a folder."""
    record = capture(small, secret, dataset="data")
    pack = max(secret.packs.iterdir(), key=lambda path: path.stat().st_size)
    body = bytearray(pack.read_bytes())
    body[-56 - 16 - 3] ^= 1  # the last entry's padding, before the tag and the trailer
    pack.write_bytes(body)
    assert verify(secret, record.id, read_data=True)
    assert repair(secret, {}).unmended == []
    assert verify(secret, record.id, read_data=True) == []


def test_a_store_is_encrypted_as_a_whole(source: Path, store: Store, tmp_path: Path) -> None:
    first = capture(source, store, dataset="data")
    (source / "more").write_bytes(CANARY * 100)
    second = capture(source, store, dataset="data", parent=first.id, streams=is_rdb)
    encrypt(store, PASSPHRASE)
    assert sorted(path.name for path in store.path.parent.iterdir()) == ["source", "store"]
    secret = Store.open(store.path, create=False, passphrase=PASSPHRASE)
    assert secret.ids() == sorted([first.id, second.id])
    assert not any(CANARY in body for body in files_of(secret).values())
    assert (secret.path.stat().st_mode & 0o777) == 0o700
    restore(secret, second.id, tmp_path / "back")
    assert tree_equal(source, tmp_path / "back") == []
    third = capture(source, secret, dataset="data", parent=second.id, streams=is_rdb)
    assert third.root == second.root
    with pytest.raises(StoreUnusable, match="already"):
        encrypt(secret, PASSPHRASE)


ENCRYPT = """
import sys
from pathlib import Path
from snapshots.encrypting import encrypt
from snapshots.store import Store
encrypt(Store.open(Path(sys.argv[1])), sys.stdin.read())
"""


def test_encrypting_that_is_killed_leaves_the_store_as_it_was(
    small: Path, store: Store, tmp_path: Path
) -> None:
    """Killed at each place that is passed: the store is plain and whole, and can be encrypted."""
    record = capture(small, store, dataset="data")
    passed = 0
    for nth in range(1, 40, 3):
        points = Failing(tmp_path / f"points-{nth}", f"* kill {nth}")
        done = subprocess.run(
            [sys.executable, "-c", ENCRYPT, str(store.path)],
            input=PASSPHRASE,
            text=True,
            env={**os.environ, **points.env, "PYTHONPATH": str(ROOT)},
            timeout=60,
            check=False,
        )
        if done.returncode == 0:
            break
        passed += 1
        assert verify(Store.open(store.path), record.id, read_data=True) == []
    assert passed > 1
    secret = Store.open(store.path, create=False, passphrase=PASSPHRASE)
    assert verify(secret, record.id, read_data=True) == []
    assert not store.path.with_name("store.encrypted").exists()


def test_another_passphrase(small: Path, secret: Store) -> None:
    """Until the change is ended both open it, so that it can be cut off at any point."""
    record = capture(small, secret, dataset="data")
    encrypting.begin_rekey(secret, PASSPHRASE, "another passphrase")
    for passphrase in (PASSPHRASE, "another passphrase"):
        opened = Store.open(secret.path, create=False, passphrase=passphrase)
        assert verify(opened, record.id, read_data=True) == []
    encrypting.end_rekey(secret, "another passphrase")
    with pytest.raises(WrongKey):
        Store.open(secret.path, create=False, passphrase=PASSPHRASE)
    opened = Store.open(secret.path, create=False, passphrase="another passphrase")
    assert verify(opened, record.id, read_data=True) == []


def test_attack_data_a_key_file_that_asks_for_all_memory(secret: Store) -> None:
    """The key file of a store names a cost of 2^40: it counts as damaged, nothing is computed."""
    body = {"key": 1, "n": 1 << 40, "salt": "00" * 16, "wrapped": "00" * 60}
    text = storekey.sealed_text(body)
    for name in storekey.FILES:
        (secret.path / name).write_bytes(text)
    with pytest.raises(Damaged):
        Store.open(secret.path, create=False, passphrase=PASSPHRASE)


def test_a_busy_store_is_not_encrypted(
    small: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture(small, store, dataset="data")
    monkeypatch.setattr("snapshots.store.LOCK_SECONDS", 0.2)
    with store.reading(), pytest.raises(SnapshotError, match="in use"):
        encrypt(store, PASSPHRASE)


def test_attack_data_an_encrypted_store_is_exchanged_for_a_plain_one(
    small: Path, secret: Store, tmp_path: Path
) -> None:
    """Somebody puts a plain store of his own, with the format to match, in the place of the
    encrypted one: who has the passphrase does not read it, but is told."""
    capture(small, secret, dataset="data")
    plain = Store.open(tmp_path / "plain")
    capture(small, plain, dataset="data")
    secret.path.rename(tmp_path / "aside")
    plain.path.rename(secret.path)
    for create in (True, False):
        with pytest.raises(StoreUnusable, match="is not encrypted, although"):
            Store.open(secret.path, create=create, passphrase=PASSPHRASE)


def test_attack_data_parts_of_another_encrypted_store_are_put_in(
    small: Path, secret: Store, tmp_path: Path
) -> None:
    """Packs, trees and records of a store with the same content, the same passphrase and another
    key are put in place of its own: each counts as damaged, none is restored from."""
    record = capture(small, secret, dataset="data")
    other = Store.open(tmp_path / "other", passphrase=PASSPHRASE)
    foreign = capture(small, other, dataset="data")
    for own, theirs in (
        (secret.record_path(record.id), other.record_path(foreign.id)),
        (secret.tree_path(record.root), other.tree_path(foreign.root)),
        (next(secret.packs.iterdir()), next(other.packs.iterdir())),
    ):
        good = own.read_bytes()
        own.write_bytes(theirs.read_bytes())
        with pytest.raises(Damaged):
            restore(secret, record.id, tmp_path / f"back-{own.name[:8]}")
        own.write_bytes(good)
    restore(secret, record.id, tmp_path / "back")


@pytest.mark.parametrize(
    ("mode", "command"), [(0o755, "chmod 700"), (0o770, "chmod 700"), (0o701, "chmod 700")]
)
def test_fault_69_a_store_that_others_may_enter_is_refused(
    mode: int, command: str, store: Store
) -> None:
    """The store's folder is opened to a group or to everybody: neither read nor written, the
    command that mends it is named, and with it all is well."""
    store.path.chmod(mode)
    for create in (True, False):
        with pytest.raises(StoreUnusable, match=f"{command} {store.path}"):
            Store.open(store.path, create=create)
    store.path.chmod(0o700)
    Store.open(store.path)


def test_fault_69_a_store_below_a_folder_that_everybody_may_write_is_refused(
    tmp_path: Path,
) -> None:
    """Who may rename the folders above a store may exchange it: refused, unless it is sticky."""
    above = tmp_path / "above"
    above.mkdir()
    above.chmod(0o777)
    with pytest.raises(StoreUnusable, match=f"chmod o-w {above}"):
        Store.open(above / "store")
    above.chmod(0o1777)
    Store.open(above / "store")
