"""RemoteImage and Tag on a real daemon, with what the official plugin 5.2 keeps in the state."""

from __future__ import annotations

import io
import tarfile
import uuid
from collections.abc import Callable, Iterator

import docker
import pytest

from cli.display import PlainDisplay
from engine.operations import Result, refresh, up
from engine.snapshot import Resource
from tests.engine.conftest import Ground

PROGRAM = """
import pulumi_docker as docker
img = docker.RemoteImage("img", name="{image}", keep_locally=False)
docker.Tag("tag", source_image=img.image_id, target_image="{repository}:live")
pulumi.export("id", img.image_id)
"""


@pytest.fixture(scope="module")
def repository() -> Iterator[str]:
    """Two images of one file each, under a name that nobody else has."""
    name = f"lockstep-test-{uuid.uuid4().hex[:8]}"
    client = docker.from_env()
    for tag in ("1", "2"):
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as archive:
            entry = tarfile.TarInfo(f"file-{tag}")
            entry.size = 1
            archive.addfile(entry, io.BytesIO(b"x"))
        client.api.import_image_from_data(content.getvalue(), repository=name, tag=tag)
    yield name
    for image in client.images.list(name):
        for tag in image.tags:
            if tag.startswith(f"{name}:"):
                client.images.remove(tag, force=True)
    client.close()


def run(ground: Ground) -> tuple[Result, str]:
    shown = io.StringIO()
    return up(ground.stack(), PlainDisplay(shown)), shown.getvalue()


def tags(repository: str) -> set[str]:
    client = docker.from_env()
    found = {tag for image in client.images.list(repository) for tag in image.tags}
    client.close()
    return found


def entry(ground: Ground, type_: str) -> Resource:
    return next(r for r in ground.stack().snapshot().resources if r.type.endswith(type_))


def test_an_image_and_its_tag(ground: Ground, repository: str) -> None:
    set_program: Callable[[str], None] = lambda tag: ground.program(  # noqa: E731
        PROGRAM.format(image=f"{repository}:{tag}", repository=repository)
    )
    set_program("1")
    assert run(ground)[0].changes == {"create": 3}
    image_id = ground.stack().outputs()["id"]
    image, tag = entry(ground, "RemoteImage"), entry(ground, "Tag")
    assert image.id == f"{image_id}{repository}:1"
    assert tag.id == f"{image_id}.{repository}:live"
    assert image.inputs == {"__defaults": [], "keepLocally": False, "name": f"{repository}:1"}
    assert {k: v for k, v in image.outputs.items() if not k.startswith("__")} == {
        "build": None,
        "forceRemove": None,
        "id": image.id,
        "imageId": image_id,
        "keepLocally": False,
        "name": f"{repository}:1",
        "platform": None,
        "pullTriggers": None,
        "repoDigest": "",
        "triggers": None,
    }
    assert tag.outputs["sourceImageId"] == image_id
    assert image.provider == tag.provider
    assert "providers:docker::default_5_2_0::" in image.provider
    assert run(ground)[0].changes == {"same": 3}
    read = refresh(ground.stack(), PlainDisplay(io.StringIO()))
    assert read.changes == {"same": 3}

    set_program("2")
    result, _ = run(ground)
    assert result.changes == {"replace": 2, "same": 1}
    assert [str(s.op) for s in result.steps if s.type.endswith(("RemoteImage", "Tag"))] == [
        "create-replacement",
        "replace",
        "create-replacement",
        "replace",
        "delete-replaced",
        "delete-replaced",
    ]
    # The image goes by its name; a tag stays in Docker when its resource goes.
    assert tags(repository) == {f"{repository}:2", f"{repository}:live"}
    ground.program("")
    assert run(ground)[0].changes == {"delete": 2, "same": 1}
    assert tags(repository) == {f"{repository}:live"}


def test_a_vanished_image_is_seen_by_refresh(ground: Ground, repository: str) -> None:
    client = docker.from_env()
    name = f"{repository}:gone"
    source = io.BytesIO()
    tarfile.open(fileobj=source, mode="w").close()
    client.api.import_image_from_data(source.getvalue(), repository=repository, tag="gone")
    ground.program(
        f"import pulumi_docker as docker\ndocker.RemoteImage('i', name='{name}', keep_locally=True)"
    )
    assert run(ground)[0].exit_code == 0
    client.images.remove(name, force=True)
    client.close()
    read = refresh(ground.stack(), PlainDisplay(io.StringIO()))
    assert read.changes == {"delete": 1, "same": 1}


def test_an_image_that_cannot_be_had_is_a_sentence(ground: Ground) -> None:
    # Port 9 of this host: nobody answers there.
    ground.program(
        "import pulumi_docker as docker\n"
        "docker.RemoteImage('i', name='127.0.0.1:9/lockstep-test/none:1')\n"
    )
    result, shown = run(ground)
    assert result.exit_code == 1
    assert "error: pulling the image 127.0.0.1:9/lockstep-test/none:1 failed: " in shown
    assert "Traceback" not in shown


def test_other_docker_resources_are_refused_by_name(ground: Ground) -> None:
    ground.program("import pulumi_docker as docker\ndocker.Volume('v')\n")
    result, shown = run(ground)
    assert result.exit_code == 1
    assert "docker:index/volume:Volume is not in the embedded engine; use the Pulumi CLI" in shown
