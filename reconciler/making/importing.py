"""Taking a release in that another stack or host exported, as the next free number here.

All of the file is read and checked before anything of it is kept: its own hash, the record, each
config file, and every byte of its snapshots, in a store made of them beside the stack's own.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from failpoints import failpoint
from reconciler import names
from reconciler.catalog import Catalog
from reconciler.config import Stack
from reconciler.docker import Docker
from reconciler.errors import BadInput, LockstepError, Refused, StoreDamaged
from reconciler.host.hostlock import HostLock
from reconciler.making import parcel
from reconciler.making.parcel import Content, Head, Reader
from reconciler.project import allowed
from reconciler.records.ledger import Imported
from reconciler.records.release import Image, Kind, Release
from snapshots import private, transfer
from snapshots.progress import Progress
from snapshots.store import Store
from snapshots.verify import verify_all

Say = Callable[[str], None]
_WORK = "import"
_MOST_RECORD = 64 << 20


@dataclass
class Taken:
    """What a file held, laid out aside and checked."""

    head: Head
    record: Release
    contents: dict[str, bytes] = field(default_factory=dict)
    """Config contents by sha256."""
    store: Store | None = None


@dataclass(frozen=True)
class Result:
    """The new release, what it was before, what to know of it."""

    release: Release
    origin: str
    departure: Mapping[str, str]
    arrival: Mapping[str, str]
    warnings: tuple[str, ...]


def take_in(
    stack: Stack,
    catalog: Catalog,
    docker: Docker,
    path: Path,
    say: Say,
    progress: Progress | None = None,
    *,
    passphrase: str | None = None,
) -> Result:
    """Import a file. `passphrase`: of its snapshots, where they are encrypted (else the stack's).

    Cut off at any point, the stack is what it was. Raises BadInput (no export, an unknown version,
    a record that cannot be), StoreDamaged (altered or cut off), Refused (an image that is missing
    or another one, something that is not allowed here), and what the store raises.
    """
    reader = Reader(path)
    with HostLock.acquire("import", f"{stack.project}/{stack.name}", wait=10):
        catalog.clear_work(_WORK)
        try:
            key = passphrase or stack.settings.encryption
            taken = _checked(reader, catalog.work(_WORK), key, say, progress)
            release, warnings = _as_ours(stack, catalog, taken)
            allowed.insist_on_record(stack, release)
            _images(docker, reader, taken.head, release, say)
            _keep(stack, catalog, docker, taken, release, progress)
        finally:
            catalog.clear_work(_WORK)
    head = taken.head
    return Result(release, origin(head), head.departure, head.arrival, tuple(warnings))


def origin(head: Head) -> str:
    """`shop/prod prod-003`."""
    return f"{head.project}/{head.stack} {head.release}"


# reading and checking -----------------------------------------------------------------------


def _checked(
    reader: Reader, folder: Path, passphrase: str | None, say: Say, progress: Progress | None
) -> Taken:
    head = reader.head()
    say(f"checking {reader.path}: {origin(head)}, of {head.created}")
    place = folder / "store"
    record: Release | None = None
    contents: dict[str, bytes] = {}
    for name, content, size in reader.members():
        kind, _, rest = name.partition("/")
        if name == parcel.RECORD:
            record = _record(content.read(_MOST_RECORD), head, reader.path)
        elif kind == "configs":
            contents[rest] = content.read()
        elif kind == "store":
            _lay_out(place, rest, content, size)
    if record is None:
        raise BadInput(f"{reader.path} is no export of Lockstep: it has no record")
    for config in record.configs.values():
        found = contents.get(config.sha256)
        if found is None or hashlib.sha256(found).hexdigest() != config.sha256:
            raise StoreDamaged(f"{reader.path}: config file {config.path} is not as recorded")
    store = _store(place, head, passphrase, progress)
    return Taken(head, record, contents, store)


def _record(content: bytes, head: Head, path: Path) -> Release:
    try:
        record = Release.model_validate_json(content)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise BadInput(f"the record in {path} cannot be: {where} {problem['msg']}") from None
    if record.name != head.release:
        raise BadInput(f"the record in {path} is of {record.name}, not of {head.release}")
    return record


def _lay_out(place: Path, name: str, content: Content, size: int) -> None:
    """`name` is one of those that `transfer.FILE` knows."""
    target = place / name
    private.make_folder(target.parent)
    free = shutil.disk_usage(target.parent).free
    if size > free:
        raise Refused(f"there is no room to check the file: {size} bytes more than {free}")
    with open(target, "wb") as file:
        while data := content.read(1 << 20):
            file.write(data)


def _store(
    place: Path, head: Head, passphrase: str | None, progress: Progress | None
) -> Store | None:
    """The snapshots of the file as a store, all of it read and found whole."""
    wanted = {*head.departure.values(), *head.arrival.values()}
    if not wanted:
        return None
    for name in ("packs", "trees", "snapshots", "hints"):
        private.make_folder(place / name)
    (place / "lock").touch(0o600)
    encrypted = (place / "key").exists()
    if encrypted and passphrase is None:
        raise BadInput(
            "the snapshots in the file are encrypted",
            next_step="--passphrase-file FILE   names the passphrase of the store they come from",
        )
    store = Store.open(place, create=False, passphrase=passphrase if encrypted else None)
    if set(store.ids()) != wanted:
        raise StoreDamaged("the file does not have the snapshots that it says: nothing is imported")
    damages = verify_all(store, None, read_data=True, progress=progress).damages
    if damages:
        raise StoreDamaged(f"a snapshot in the file is damaged: {damages[0].reason}")
    for name, snapshot in (*head.departure.items(), *head.arrival.items()):
        if store.read(snapshot).dataset != name:
            raise StoreDamaged(f"snapshot {snapshot} in the file is not of dataset {name}")
    return store


# making it ours -----------------------------------------------------------------------------


def _as_ours(stack: Stack, catalog: Catalog, taken: Taken) -> tuple[Release, list[str]]:
    """The record under this stack's names, and what has to be known of it."""
    head, state = taken.head, catalog.state()
    renamed: dict[str, Any] = _renamed(taken.record.model_dump(mode="json"), stack, head)
    name = names.release_name(stack.name, catalog.next_number(state))
    record = Release.model_validate(renamed)
    images = {
        service: image.model_copy(update={"tag": names.image_tag(stack.project, service, name)})
        for service, image in record.images.items()
    }
    release = record.model_copy(
        update={
            "name": name,
            "parent": state.live_release,
            "previous": catalog.newest_link(),
            "images": images,
            "model": {**record.model, "name": stack.project},
            # What was another project's first world is an ordinary release here.
            "adopted": False,
        }
    )
    return release, list(_warnings(stack, head, release))


def _warnings(stack: Stack, head: Head, release: Release) -> Iterable[str]:
    root = str(stack.root.resolve())
    missing = sorted(set(release.secrets) - stack.secret_values.keys())
    if missing:
        yield (
            f"it needs the secrets {', '.join(missing)}: lockstep config set --secret secrets.NAME"
        )
    for dataset in release.datasets.values():
        outside = dataset.source is not None and dataset.source.startswith("/")
        if outside and not str(dataset.source).startswith(f"{root}/"):
            yield f"dataset {dataset.name} lies at {dataset.source}, a path of the host it was on"
        elif dataset.kind is Kind.EXTERNAL:
            yield f"dataset {dataset.name} is the external volume {dataset.source}"
    if head.project != stack.project:
        yield f"project {head.project} is {stack.project} here: its volumes are named after that"


def _renamed(value: Any, stack: Stack, head: Head) -> Any:
    """The record with the project's folder, and names that begin with the project's, as here."""
    here, there = str(stack.root.resolve()), head.root
    record: dict[str, Any] = _moved(value, there, here)
    own, other = f"{stack.project}_", f"{head.project}_"
    model = record["model"]
    for kind in ("volumes", "networks"):
        for body in (model.get(kind) or {}).values():
            if body and str(body.get("name", "")).startswith(other):
                body["name"] = own + str(body["name"])[len(other) :]
    for dataset in record["datasets"].values():
        source = dataset.get("source") or ""
        if dataset["kind"] == Kind.VOLUME.value and source.startswith(other):
            dataset["source"] = own + source[len(other) :]
    return record


def _moved(value: Any, there: str, here: str) -> Any:
    if isinstance(value, str):
        inside = value == there or value.startswith(f"{there}/")
        return here + value[len(there) :] if inside else value
    if isinstance(value, dict):
        return {_moved(k, there, here): _moved(v, there, here) for k, v in value.items()}
    if isinstance(value, list):
        return [_moved(v, there, here) for v in value]
    return value


def _images(docker: Docker, reader: Reader, head: Head, release: Release, say: Say) -> None:
    """What the release runs is there, by its ids. Raises Refused."""
    numbers = {image_id: number for number, image_id in head.images.items()}
    for image in {image.id: image for image in release.images.values()}.values():
        if docker.image(image.id) is None and image.id in numbers:
            say(f"loading image {image.id.removeprefix('sha256:')[:12]}")
            docker.load_image(reader.image(numbers[image.id]))
        if docker.image(image.id) is None and not _pulled(docker, image):
            raise Refused(
                f"image {image.id[:19]} of service {image.service} is not on this host",
                next_step="lockstep export --images   puts what a release runs into its file",
            )


def _pulled(docker: Docker, image: Image) -> bool:
    for digest in image.digests:
        with suppress(LockstepError):
            if docker.pull(digest).id == image.id:
                return True
    return False


# keeping it ---------------------------------------------------------------------------------


def _keep(
    stack: Stack,
    catalog: Catalog,
    docker: Docker,
    taken: Taken,
    release: Release,
    progress: Progress | None,
) -> None:
    """Content first, then the ledger's line, tags and the record, which makes it a release."""
    if taken.store is not None:
        store = stack.open_store()
        ids = transfer.absorb(store, taken.store, progress)
        damages = verify_all(store, ids, read_data=True, progress=progress).damages
        if damages:
            raise StoreDamaged(
                f"the store {store.path} does not have what was written: {damages[0].reason}",
                next_step="lockstep repair   mends what can be mended, then import again",
            )
    failpoint("catalog.imported")
    for image in release.images.values():
        docker.tag(image.id, image.tag)
    try:
        catalog.write(release, taken.contents)
    except BaseException:
        for image in release.images.values():
            docker.untag(image.tag)
        raise
    catalog.ledger.append(
        Imported(
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            release=release.name,
            origin=origin(taken.head),
            departure=taken.head.departure,
            arrival=taken.head.arrival,
            probes=taken.head.probes,
        )
    )
