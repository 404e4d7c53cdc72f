"""The gates of a switch: who is asked when, and what is asked once more before the commit."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from reconciler.config import Stack
from reconciler.docker import ContainerDetails
from reconciler.gates.results import GateResult
from reconciler.host.graph import Act, perform
from reconciler.plan import Action, DatasetPlan
from reconciler.project import compose
from reconciler.records.release import Release
from reconciler.switching.handover import AT_REST
from reconciler.switching.services import Services
from reconciler.world.hostworld import HostWorld, Service

if TYPE_CHECKING:
    from reconciler.gates.asking import Question
    from reconciler.gates.keeper import Keeper

Counts = Mapping[str, Mapping[str, int]]


class Proof:
    """What the services that are proved before they may be live must show."""

    def __init__(
        self,
        stack: Stack,
        services: Services,
        proving: HostWorld,
        record: Release,
        *,
        returned: Collection[str],
        facts: Callable[[], Mapping[str, Any]],
        tell: Callable[[GateResult], None],
    ) -> None:
        """`returned`: services with data from the past; `facts`: for commands on the host; `tell`
        is told what became of each gate."""
        self.stack, self.services, self.proving = stack, services, proving
        self._returned, self._facts, self._tell = returned, facts, tell
        self._seen: dict[str, str] = {}
        self.questions = self._all_questions(record)

    def _all_questions(self, record: Release) -> list[Question]:
        """A gate of the stack that names a service which starts after the commit is not asked."""
        by_service = {s.name: s.gates for s in self.proving.services.values()}
        by_service[""] = compose.stack_gates(record.model, self.stack.settings)
        if not any(by_service.values()):
            return []  # what asks them need not be loaded
        from reconciler.gates.asking import questions

        found = [q for name, gates in by_service.items() for q in questions(name, gates)]
        return [q for q in found if not q.service or q.service in self.proving.services]

    @property
    def resetting(self) -> frozenset[str]:
        """Services of which something is reset before others use them."""
        return frozenset(q.service for q in self._resets())

    def reset(self, service: Service) -> None:
        """Put right what its data brought back from the past."""
        for question in self._resets():
            if question.service == service.name:
                self._keeper({}).put_right(question, service)

    def acts(
        self, before: Counts, early: Collection[str], on_answer: Callable[[Service], None]
    ) -> list[Act]:
        """One act a question, as early as its service is ready; the stack's when all are.

        `before`: dataset -> what was counted in the content that it had when it was sealed;
        `early`: services that were ready before the hand-over; `on_answer` is told of each
        service that a gate let pass.
        """
        if not self.questions:
            return []
        keeper = self._keeper(before)
        return [
            Act(
                f"gate {number} {question.service}",
                partial(self._insist, keeper, question, on_answer),
                frozenset(self._after(question, early)),
            )
            for number, question in enumerate(self.questions)
        ]

    def _after(self, question: Question, early: Collection[str]) -> set[str]:
        names = [question.service] if question.service else list(self.proving.services)
        # What was ready before the hand-over is asked when nothing of the old world runs.
        return {AT_REST if name in early else f"ready {name}" for name in names}

    def last_look(self, before: Counts) -> None:
        """Ask once more what may have become wrong since, and everything of a service that was
        started again since it passed. Raises NotProved."""
        anew = self._started_again()
        again = [
            q for question in self.questions
            if (q := question if question.service in anew else question.again) is not None
        ]  # fmt: skip
        if not again:
            return
        keeper = self._keeper(before)
        acts = [
            Act(f"{n}", partial(keeper.insist, q, self._service(q), quiet=True))
            for n, q in enumerate(again)
        ]
        perform(acts, self.services.abandoned)

    def _started_again(self) -> set[str]:
        """Services with a container that is not the run of it that passed a gate."""
        docker, asked = self.services.docker, {q.service for q in self.questions}
        return {
            name
            for name, service in self.proving.services.items()
            if name in asked
            for container_id in service.ids
            if container_id in self._seen
            and docker.inspect(container_id).started != self._seen[container_id]
        }

    def _insist(
        self, keeper: Keeper, question: Question, on_answer: Callable[[Service], None]
    ) -> None:
        service = self._service(question)
        keeper.insist(question, service)
        if service is not None and question.gate.severity == "must":
            on_answer(service)

    def _service(self, question: Question) -> Service | None:
        return self.proving.services.get(question.service)

    def _resets(self) -> list[Question]:
        return [
            q
            for q in self.questions
            if q.kind == "redis" and q.asks.reset is not None and q.service in self._returned
        ]

    def _keeper(self, before: Counts) -> Keeper:
        from reconciler.gates.asking import Ground
        from reconciler.gates.keeper import Keeper

        services = self.services
        ground = Ground(
            services.docker,
            secrets=self.stack.secret_values,
            folder=self.stack.root,
            facts=self._facts,
            before=before,
            restarts=lambda container_id: services.restarts.get(container_id, 0),
            given_up=services.abandoned,
        )
        return Keeper(services, ground, self._tell, self._seen)


def returned(record: Release, planned: Mapping[str, DatasetPlan]) -> frozenset[str]:
    """Services with data that came back from the past."""
    back = {
        p.name
        for p in planned.values()
        if p.action in (Action.ATTACH, Action.RESTORE)
        or (p.action is Action.IN_PLACE and p.snapshot is not None)
    }
    return frozenset(
        mount.service
        for dataset in record.datasets.values()
        if dataset.name in back
        for mount in dataset.mounts
    )


def told_to_host(world: HostWorld, release: str, **more: Any) -> dict[str, Any]:
    """The facts that a command on the host gets, never a secret among them."""
    return {
        "schema": 1,
        "release": release,
        "world": world.name,
        **more,
        "services": {
            name: [_container(container) for container in service.containers]
            for name, service in world.services.items()
        },
    }


def _container(container: ContainerDetails) -> dict[str, Any]:
    return {
        "name": container.name,
        "id": container.id,
        "addresses": dict(container.addresses),
        "ports": [asdict(port) for port in container.ports],
    }
