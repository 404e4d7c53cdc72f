"""A registry that does not give what it should: refused before anything stops."""

from __future__ import annotations

from tests.stacks.harness import Project, docker, python_image
from tests.stacks.registry import layer, registry


def insist_on_refusal(project: Project, says: str, code: int = 1) -> None:
    running = project.containers()
    refused = project.run("new", "from a registry", code=code)
    assert says.lower() in refused.err.lower(), refused.err
    assert [r["release"] for r in project.releases()] == ["prod-001"]
    assert (project.containers(), project.notes()) == (running, ["kept"])


def test_fault_33_34_a_registry_that_fails_stops_nothing(notes: Project) -> None:
    """The daemon pulls from a registry that answers 404, 429, sends an empty layer in the place of
    one, a damaged one, names an empty one, or does not listen: `new` fails with the registry's or
    Docker's words, no release is made, and nothing stops."""
    notes.release("one")
    notes.note("kept")
    with registry() as there:
        notes.compose_file(i=f"image: {python_image()}=>image: {there.image}")
        there.answer = 404
        insist_on_refusal(notes, there.image)
        there.answer = 429
        insist_on_refusal(notes, "toomanyrequests")
        there.answer = 200
        good = layer("file", b"content")
        there.offer(good, served=b"")
        insist_on_refusal(notes, there.image)
        there.offer(good, served=good[:-9] + b"123456789")
        insist_on_refusal(notes, there.image)
        there.offer(layer("", b""))
        insist_on_refusal(notes, f"image {there.image} of service app is empty", code=3)
        docker("rmi", there.image)
        assert there.asked
    insist_on_refusal(notes, "connection refused")
    assert docker("images", "-q", there.image) == ""
    notes.nothing_to_do()
