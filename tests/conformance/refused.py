"""The table of what cannot be honoured, each with the compose file that shows it.

docs/compose.md is made from it, and a test sees each one refused with its line and its remedy.
"""

from __future__ import annotations

from dataclasses import dataclass

_HEALTHY = '    healthcheck: {test: ["CMD", "true"]}\n'
_APP = f"services:\n  app:\n    image: lockstep-base/debian:12\n{_HEALTHY}"


@dataclass(frozen=True)
class Refused:
    """`text`: the compose file; `line`: the line of it that the refusal names (None: Compose's own
    words do); `says` and `do`: texts that the refusal must contain."""

    what: str
    text: str
    line: int | None
    says: str
    do: str


REFUSED = (
    Refused(
        "`post_start`, `pre_stop`",
        _APP + "    post_start:\n      - command: echo hello\n",
        5,
        "post_start of service app",
        "move it into the image's entrypoint, or into a job service",
    ),
    Refused(
        "a service with a `provider`",
        _APP + "  tunnel:\n    provider: {type: model}\n",
        6,
        "service tunnel has a provider",
        "leave it out by a profile",
    ),
    Refused(
        "a volume without a name, also an image's own `VOLUME`",
        _APP + "    volumes:\n      - ./x:/x\n      - /var/lib/app\n",
        7,
        "service app keeps data at /var/lib/app in a volume without a name",
        "under volumes of service app add `- app-var-lib-app:/var/lib/app`",
    ),
    Refused(
        "the project's own folder, mounted writable",
        _APP + "    volumes:\n      - .:/src\n",
        5,
        "where Lockstep keeps",
        "take it out of the compose file",
    ),
    Refused(
        "a config or secret by content in a `read_only` service",
        _APP + "    read_only: true\n    configs: [motd]\nconfigs:\n  motd: {content: hello}\n",
        5,
        "is read_only, so /motd cannot be put into it",
        "give the config or secret as `file:`",
    ),
    Refused(
        "a config or secret by content below a mount",
        _APP
        + "    volumes: [data:/data]\n    configs: [{source: motd, target: /data/motd}]\n"
        + "configs:\n  motd: {content: hello}\nvolumes: {data: }\n",
        2,
        "/data/motd of service app lies below one of its mounts",
        "give it another target",
    ),
    Refused(
        "a secret from a variable that the stack's config does not have",
        _APP + "    secrets: [token]\nsecrets:\n  token: {environment: TOKEN}\n",
        7,
        "secrets.token in the compose file takes its value from TOKEN",
        "lockstep config set --secret --path secrets.TOKEN",
    ),
    Refused(
        "a config from a variable that the stack's config does not have",
        _APP + "    configs: [motd]\nconfigs:\n  motd: {environment: MOTD}\n",
        7,
        "configs.motd in the compose file takes its content from MOTD",
        "lockstep config set --path environment.MOTD VALUE",
    ),
    Refused(
        "a config whose file is not there",
        _APP + "    configs: [motd]\nconfigs:\n  motd: {file: ./absent}\n",
        7,
        "absent is not a file",
        "make it, or take the config out of the compose file",
    ),
    Refused(
        "`external` secrets and configs",
        _APP + "    secrets: [token]\nsecrets:\n  token: {external: true}\n",
        7,
        "secrets.token in the compose file is external",
        "give it as `file:` or `environment:`",
    ),
    Refused(
        "a service that depends on one which starts after the commit",
        _APP
        + "    depends_on: [mail]\n  mail:\n    image: lockstep-base/debian:12\n"
        + "    x-lockstep: {start: after-commit}\n",
        5,
        "service app depends on mail, which starts after the commit",
        "let app start after the commit too, or drop the dependency",
    ),
    Refused(
        "an `x-lockstep` that says what nobody knows",
        _APP + "    x-lockstep: {jobs: true}\n",
        5,
        "services.app.x-lockstep.jobs in the compose file",
        "x-lockstep may say here: ",
    ),
    Refused(
        "what asks for the host: `privileged`, `docker.sock`, `/etc` ... ([more](security.md))",
        _APP + "    volumes:\n      - /var/run/docker.sock:/var/run/docker.sock\n",
        6,
        "service app mounts /var/run/docker.sock",
        "lockstep config set --path 'allow[0]' app.bind:/var/run/docker.sock",
    ),
    Refused(
        "nothing that could prove the release",
        _APP.replace(_HEALTHY, ""),
        None,
        "the release could not be proved",
        "add to service app in the compose file `healthcheck:",
    ),
    Refused(
        "what Compose itself refuses",
        _APP + "    cpus: many\n",
        None,
        "the compose file cannot be used",
        "docker compose config   in its folder shows the same",
    ),
)
