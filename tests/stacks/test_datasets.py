"""Datasets that are not plain volumes: bind directories, external volumes, an image's own ones."""

from __future__ import annotations

import pytest

from snapshots.store import Store
from tests.stacks.harness import Project, docker


def on_a_bind_directory(project: Project) -> None:
    (project.folder / "uploads").mkdir()
    project.compose_file(
        a="notes:/notes=>./uploads:/notes",
        b="volumes:\n  notes:\n=>",
    )


def test_a_bind_directory_is_worked_on_in_place(notes: Project) -> None:
    on_a_bind_directory(notes)
    notes.release("one")
    notes.note("a")
    file = notes.folder / "uploads" / "notes.txt"
    assert file.read_text() == "a\n"
    notes.release("two")
    notes.note("b")
    preview = notes.preview()
    assert preview["move"] == "stay"
    notes.declare("prod-001")
    planned = notes.preview()["datasets"]["uploads"]
    assert planned["action"] == "in-place"
    back = notes.up().text
    assert file.read_text() == "a\n", "what prod-001 left was put back in place"
    assert back.index("reading uploads in advance") < back.index("stopping")
    store = Store.open(notes.folder / "releases" / "store")
    kinds = [store.read(snapshot).tags.get("kind") for snapshot in store.ids()]
    assert kinds
    assert "advance" not in kinds, "what was read in advance is no snapshot to keep"
    notes.nothing_to_do()
    notes.run("undo", "--yes")
    assert file.read_text() == "a\nb\n"


def test_in_place_data_is_put_back_when_the_proof_fails(notes: Project) -> None:
    on_a_bind_directory(notes)
    notes.release("one")
    notes.note("a")
    notes.compose_file(
        b='VERSION: "1"=>VERSION: "2"\n      BROKEN: "always"',
        c="\"/app.py\"]=>\"-c\", \"open('/notes/notes.txt','w').write('rewritten'); "
        "exec(open('/app.py').read())\"]",
    )
    notes.run("config", "set", "deadline", "4")
    notes.new("a migration that goes wrong")
    notes.up(code=4)
    assert notes.notes() == ["a"]
    assert (notes.folder / "uploads" / "notes.txt").read_text() == "a\n"


def test_a_bind_directory_may_be_forked(notes: Project) -> None:
    on_a_bind_directory(notes)
    notes.run("config", "set", "--path", "datasets.uploads.strategy", "fork")
    (notes.folder / "uploads" / "notes.txt").write_text("from before\n")
    notes.release("one")
    assert notes.notes() == ["from before"]
    notes.note("a")
    assert (notes.folder / "uploads" / "notes.txt").read_text() == "from before\n"
    notes.release("two")
    notes.note("b")
    notes.run("rollback", "--yes")
    assert notes.notes() == ["from before", "a"]


@pytest.fixture
def external(notes: Project) -> str:
    name = f"{notes.name}-external"
    docker("volume", "create", "--label", f"lockstep.project={notes.name}", name)
    return name


def test_an_external_volume_is_worked_on_in_place(notes: Project, external: str) -> None:
    notes.compose_file(b=f"  notes:\n=>  notes: {{external: true, name: {external}}}\n")
    notes.release("one")
    notes.note("a")
    notes.release("two")
    notes.note("b")
    assert external in notes.volumes()
    notes.run("rollback", "--yes")
    assert notes.notes() == ["a"]
    notes.nothing_to_do()


def test_an_anonymous_volume_is_refused_with_the_line_to_add(notes: Project) -> None:
    notes.compose_file(a="- notes:/notes=>- notes:/notes\n      - /cache")
    refused = notes.run("new", "one", code=None)
    assert refused.code in (2, 3)
    assert "/cache" in refused.err
    assert "datasets." in refused.err
    for key, value in (("service", "app"), ("target", "/cache"), ("kind", "anonymous")):
        notes.run("config", "set", "--path", f"datasets.cache.{key}", value)
    notes.release("one")
    assert f"{notes.name}-prod_cache_g1" in notes.volumes()


def test_a_new_dataset_beside_existing_data_is_warned_of(notes: Project) -> None:
    notes.release("one")
    notes.compose_file(
        a="- notes:/notes=>- notes:/notes\n      - extra:/extra",
        b="volumes:\n  notes:\n=>volumes:\n  notes:\n  extra:\n",
    )
    notes.new("two")
    preview = notes.preview()
    assert any("extra" in warning and "empty" in warning for warning in preview["warnings"])
    notes.up()
    notes.nothing_to_do()


def test_a_dropped_dataset_stays_in_the_store(notes: Project) -> None:
    notes.compose_file(
        a="- notes:/notes=>- notes:/notes\n      - extra:/extra",
        b="volumes:\n  notes:\n=>volumes:\n  notes:\n  extra:\n",
    )
    notes.release("one")
    notes.compose_file(
        a="\n      - extra:/extra=>",
        b="  extra:\n=>x-lockstep: {dropped: [extra]}\n",
    )
    notes.release("two")
    assert set(notes.preview()["datasets"]) == {"notes"}
    notes.run("rollback", "--yes")
    assert set(notes.preview()["datasets"]) == {"notes", "extra"}


def test_services_after_the_commit_and_jobs(notes: Project) -> None:
    image = (notes.folder / "compose.yaml").read_text().split("image: ")[1].split("\n")[0]
    text = (notes.folder / "compose.yaml").read_text()
    text = text.replace(
        "volumes:\n  notes:\n",
        f"""  mailer:
    image: {image}
    command: ["sleep", "600"]
    init: true
    restart: always
    x-lockstep: {{start: after-commit}}
  migrate:
    image: {image}
    command: ["sh", "-c", "echo migrated >> /notes/notes.txt"]
    volumes: [notes:/notes]
    restart: "no"
  announce:
    image: {image}
    command: ["sh", "-c", "echo announced >> /notes/notes.txt"]
    volumes: [notes:/notes]
    depends_on: {{migrate: {{condition: service_completed_successfully}}}}
    x-lockstep: {{job: again}}
volumes:
  notes:
""",
    ).replace(
        "    restart: unless-stopped",
        "    restart: unless-stopped\n"
        "    depends_on: {migrate: {condition: service_completed_successfully}}",
    )
    (notes.folder / "compose.yaml").write_text(text)
    notes.release("one")
    assert notes.notes() == ["migrated", "announced"]
    names = set(notes.containers().values())
    assert f"{notes.name}-prod-001-mailer-1" in names
    notes.nothing_to_do()
    assert notes.notes() == ["migrated", "announced"], "a job is not run again by staying"
    policies = {
        name: docker("inspect", "--format", "{{.HostConfig.RestartPolicy.Name}}", name).strip()
        for name in names
    }
    assert policies[f"{notes.name}-prod-001-mailer-1"] == "always"
    assert policies[f"{notes.name}-prod-001-app-1"] == "unless-stopped"
    notes.release("two")
    old = f"{notes.name}-prod-001-mailer-1"
    assert docker("inspect", "--format", "{{.HostConfig.RestartPolicy.Name}}", old).strip() == "no"
    assert notes.notes() == ["migrated", "announced"] * 2
    notes.run("rollback", "--yes")
    assert notes.notes() == ["migrated", "announced", "announced"], "only one is marked `again`"
