"""What a gate may say, in the compose file's `x-lockstep` and in the stack's config. Times are
seconds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    ByteSize,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from reconciler.setting import Setting, Word

FORMS = ONE, SEVERAL = "one", "several"
"""Tags of the two forms, which no error message needs."""

Port = Annotated[int, Field(gt=0, lt=65536)]
Plain = bool | int | float | str
_TABLE = re.compile(r'[\w$".]+')


UNFINISHED = "unfinished"
"""The type of an error that another key would mend."""


def lacking(what: str) -> PydanticCustomError:
    """The error of a gate that says too little, as one does that is set key by key."""
    return PydanticCustomError(UNFINISHED, "{what}", {"what": what})


def _form(value: Any) -> str:
    return SEVERAL if isinstance(value, list | tuple) else ONE


_T = TypeVar("_T")
OneOrMore = Annotated[
    Annotated[_T, Tag(ONE)] | Annotated[tuple[_T, ...], Tag(SEVERAL)], Discriminator(_form)
]
"""As it may be written: one, or a list."""


def _is_pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"{value!r} is no regular expression: {error}") from None
    return value


class Expected(Setting):
    """What a value must be; all that is said must hold."""

    equals: Plain | None = Field(None, description="the value itself; numbers by value")
    matches: Word = Field("", description="a regular expression that is found in it")
    greater: float | None = Field(None, description="it is a number above this")
    less: float | None = Field(None, description="it is a number below this")

    _matches_is_a_pattern = field_validator("matches")(_is_pattern)

    @property
    def says_nothing(self) -> bool:
        """Whether any value would do."""
        return self.equals is None and not self.matches and self.greater is self.less is None


class JsonExpected(Expected):
    """One value in a JSON answer; without more it must be there."""

    path: Word = Field(description="like `status`, `items[0].id` or `$.a.b`")


class HttpGate(Setting):
    """A request to the service's own address: passed when it answers as told."""

    port: Port = Field(description="inside the container")
    path: Word = Field("/", description="what is asked for")
    method: Literal["GET", "HEAD", "POST"] | None = Field(
        None, description="GET, or POST when there is a body"
    )
    tls: bool = Field(False, description="by HTTPS; whose certificate it is, `certificate` asks")
    headers: dict[str, Word] = Field(
        {}, description="sent with it; `${NAME}` is the value of the stack's secret NAME"
    )
    body: Word | dict[str, Any] | list[Any] | None = Field(
        None, description="sent with it; an object or a list as JSON; `${NAME}` as in headers"
    )
    status: int | tuple[int, ...] = Field(200, description="one status, or a list of them")
    contains: Word = Field("", description="text in the answer's body")
    matches: Word = Field("", description="a regular expression that is found in the body")
    header: dict[str, Word] = Field(
        {}, description="header of the answer -> a regular expression found in it"
    )
    values: OneOrMore[JsonExpected] = Field(
        (), description="in a body of JSON: one or a list of `path` and what is expected there"
    )
    latency: Annotated[float, Field(gt=0)] | None = Field(
        None, description="seconds that the whole answer may take"
    )

    _matches_is_a_pattern = field_validator("matches")(_is_pattern)

    @field_validator("header")
    @classmethod
    def _headers_are_patterns(cls, value: dict[str, str]) -> dict[str, str]:
        return {name: _is_pattern(pattern) for name, pattern in value.items()}

    @property
    def verb(self) -> str:
        """The method that is used."""
        return self.method or ("GET" if self.body is None else "POST")

    @property
    def statuses(self) -> tuple[int, ...]:
        return self.status if isinstance(self.status, tuple) else (self.status,)

    @property
    def expected(self) -> tuple[JsonExpected, ...]:
        return self.values if isinstance(self.values, tuple) else (self.values,)


class LogGate(Setting):
    """What the service says from its start on."""

    must: tuple[Word, ...] = Field((), description="regular expressions, each found in some line")
    never: tuple[Word, ...] = Field(
        (), description="regular expressions found in no line, asked once more before the commit"
    )

    @field_validator("must", "never", mode="before")
    @classmethod
    def _may_be_one(cls, value: Any) -> Any:
        return value if isinstance(value, list | tuple) else (value,)

    @field_validator("must", "never")
    @classmethod
    def _are_patterns(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_is_pattern(pattern) for pattern in value)

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.must and not self.never:
            raise lacking("say must or never")
        return self


class SqlGate(Expected):
    """A query's first value, or a table's rows, read by the client in the service's container."""

    query: Word = Field("", description="its first column of its first row is judged")
    table: Word = Field("", description="instead of a query: how many rows it has")
    database: Word = Field(
        "", description="if not named, the one that the container's environment names"
    )
    share_of_before: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="with `table`: at least this share of the rows that its data had when it was "
        "sealed, 1.0 being all",
    )

    @model_validator(mode="after")
    def _is_one_question(self) -> Self:
        if self.query and self.table:
            raise ValueError("either query or table")
        if self.table and not _TABLE.fullmatch(self.table):
            raise ValueError(f"{self.table!r} is no table's name")
        if self.query and self.share_of_before is not None:
            raise ValueError("share_of_before needs table")
        if not self.query and not self.table:
            raise lacking("either query or table")
        if self.says_nothing and self.share_of_before is None:
            raise lacking("say what is expected: equals, matches, greater, less")
        return self


class Reset(Setting):
    """What becomes of a key whose data came back from the past."""

    set: Word | None = Field(None, description="the key gets this value")
    delete: bool = Field(False, description="the key is removed")

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if self.set is not None and self.delete:
            raise ValueError("either set or delete")
        if self.set is None and not self.delete:
            raise lacking("either set or delete")
        return self


class RedisGate(Expected):
    """The value of a key, read by redis-cli in the service's container."""

    key: Word = Field(description="which one")
    field: Word = Field("", description="of a hash")
    db: Annotated[int, Field(ge=0)] = Field(0, description="the number of the database")
    absent: bool = Field(False, description="the key must not be there")
    reset: Reset | None = Field(
        None,
        description="`{set: VALUE}` or `{delete: true}`, done before others use it when the "
        "service's data was attached or restored, as on a rollback",
    )

    @model_validator(mode="after")
    def _expects_something(self) -> Self:
        what = "say what is expected: equals, matches, greater, less, or absent"
        if self.absent and not self.says_nothing:
            raise ValueError(what)
        if self.says_nothing and not self.absent:
            raise lacking(what)
        return self


class ResourceGate(Setting):
    """What the service uses, at most; asked once more before the commit."""

    memory: ByteSize | None = Field(None, description="bytes without the page cache, like 512MiB")
    memory_percent: float | None = Field(
        None, description="of the container's limit, or of the host's memory if it has none"
    )
    cpu_percent: float | None = Field(None, description="over about a second; 100 is one core")
    restarts: Annotated[int, Field(ge=0)] | None = Field(
        None, description="how often it was started again after it had ended"
    )

    @property
    def says_nothing(self) -> bool:
        """Whether nothing is limited."""
        return all(value is None for _, value in self)

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if self.says_nothing:
            raise lacking(f"limit something: {', '.join(type(self).model_fields)}")
        return self


class CertificateGate(Setting):
    """The certificate that a TLS port shows."""

    port: Port = Field(description="inside the container")
    host: Word = Field("", description="the name that it must be for; also sent as SNI")
    days: Annotated[float, Field(ge=0)] = Field(14, description="days that it is valid at least")
    trusted: bool = Field(False, description="by an authority that this host trusts")

    @model_validator(mode="after")
    def _trust_is_in_a_name(self) -> Self:
        if self.trusted and not self.host:
            raise lacking("trusted needs host: trust is in a certificate for a name")
        return self


class Gate(Setting):
    """One or several questions with common limits. The keys after `certificate` are its limits."""

    http: HttpGate | None = Field(None, description="a request to the service")
    tcp: Port | None = Field(None, description="a port that takes connections")
    command: tuple[Word, ...] = Field(
        (), description="run in the container, an argument list; passed by exit code 0"
    )
    host: tuple[Word, ...] = Field(
        (),
        description="run on the host in the stack's folder, an argument list, with facts as JSON "
        "on standard input; passed by exit code 0",
    )
    log: LogGate | None = Field(None, description="what its output must or must never say")
    health: Literal[True] | None = Field(
        None, description="Docker itself calls it healthy, at its own interval"
    )
    sql: SqlGate | None = Field(None, description="a query's value, or a table's rows")
    redis: RedisGate | None = Field(None, description="a key's value")
    resources: ResourceGate | None = Field(None, description="what it may use")
    certificate: CertificateGate | None = Field(None, description="the certificate of a TLS port")

    name: Word = Field("", max_length=60, description="what it is called; what it asks if not said")
    service: Word = Field("", description="only for the stack's own gates: which service is asked")
    severity: Literal["must", "warn"] = Field(
        "must", description="whether a failure reverts the switch, or only warns"
    )
    inconclusive: Literal["fail", "warn", "pass"] = Field(
        "fail", description="what it means when it could not be found out"
    )
    inconclusive_codes: tuple[int, ...] = Field(
        (), description="exit codes of `command` and `host` that say neither yes nor no"
    )
    timeout: Annotated[float, Field(gt=0)] | None = Field(
        None, description="seconds for one try; by kind if not said"
    )
    interval: Annotated[float, Field(gt=0)] | None = Field(
        None, description="seconds between tries; 0.05, slowly growing to 0.5, if not said"
    )
    retries: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description="tries that may go wrong and be followed by another; if not said, any number "
        "until the `deadline` (`warn`: 5)",
    )
    failure_limit: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description="wrong answers that are borne; a service that does not answer yet gave none",
    )
    passes: Annotated[int, Field(ge=1)] = Field(
        1, description="good answers in a row that it takes"
    )

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if not any(self.asks()):
            raise lacking(f"it asks nothing: say one of {', '.join(KINDS)}")
        return self

    def asks(self) -> Iterator[tuple[str, Any]]:
        """(kind, question) of each question."""
        for kind in KINDS:
            question = getattr(self, kind)
            if question:
                yield kind, question


KINDS: Mapping[str, float] = {
    "http": 5, "tcp": 5, "command": 60, "host": 300, "log": 10, "health": 5, "sql": 30,
    "redis": 10, "resources": 10, "certificate": 5,
}  # fmt: skip
"""Kind -> seconds that one try may take."""
_WARN_RETRIES = 5


WRITTEN: TypeAdapter[Gate | tuple[Gate, ...]] = TypeAdapter(OneOrMore[Gate])


def insist_on_place(service: str, gates: tuple[Gate, ...]) -> None:
    """`service` is said by gates of the stack ("") that ask a container, and by no other.

    Raises ValueError.
    """
    for gate in gates:
        asked = inside(gate)
        if service and gate.service:
            raise ValueError(f"gates.{service}: `service` is only for the stack's own gates")
        if not service and asked and not gate.service:
            raise ValueError(f"a gate of the stack: say which `service` {asked[0]} asks")


def inside(gate: Gate) -> list[str]:
    """The kinds that ask a container."""
    return sorted({kind for kind, _ in gate.asks()} - {"host"})


def retries(gate: Gate) -> int | None:
    """Tries that may go wrong and be followed by another; None: any number."""
    if gate.retries is None and gate.severity == "warn":
        return _WARN_RETRIES
    return gate.retries


def describe(kind: str, question: Any) -> str:
    """What is asked, for a person: `GET :8000/health`."""
    match kind:
        case "http":
            return f"{question.verb} :{question.port}{question.path}"
        case "tcp":
            return f"a connection to port {question}"
        case "command":
            return " ".join(question)
        case "host":
            return f"{' '.join(question)}, on the host"
        case "log":
            return "its log"
        case "health":
            return "Docker's health check"
        case "sql":
            return f"rows of {question.table}" if question.table else question.query
        case "redis":
            return f"redis key {question.key}" + (f" {question.field}" if question.field else "")
        case "resources":
            limited = [name for name, value in question if value is not None]
            return f"its {' and '.join(limited).replace('_', ' ')}"
        case _:
            return f"the certificate of port {question.port}"
