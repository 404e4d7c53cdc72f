"""Two examples for every command, shown below its help and in docs/commands.md."""

from __future__ import annotations

from typing import Any

import typer

EXAMPLES: dict[str, tuple[str, ...]] = {
    "init": (
        "lockstep init",
        "lockstep init --yes --name shop",
        "lockstep init --yes --json | jq '.datasets[] | {name, driver, driver_because}'",
    ),
    "new": (
        'lockstep new "orders can be cancelled"',
        'lockstep new "the image of CI" --image web=registry.example/shop:7',
    ),
    "up": (
        "lockstep up",
        'lockstep up --yes -m "approved by Kim"',
        "lockstep up --plan tonight.json --yes",
    ),
    "preview": (
        "lockstep preview",
        "lockstep preview --json | jq .refusals",
        "lockstep preview --save-plan tonight.json",
    ),
    "rollback": (
        "lockstep rollback",
        "lockstep rollback prod-002 --yes",
        "lockstep rollback --yes --json | jq -r .downtime_seconds",
    ),
    "undo": ("lockstep undo", 'lockstep undo --yes -m "it was the network"'),
    "rehearse": ("lockstep rehearse", "lockstep rehearse prod-004 --outgoing"),
    "list": ("lockstep list", "lockstep list --json | jq -r .live"),
    "info": ("lockstep info", "lockstep info prod-002 --json"),
    "log": ("lockstep log", "lockstep log -n 1 --json"),
    "diff": ("lockstep diff", "lockstep diff prod-001 prod-003"),
    "pin": ("lockstep pin prod-002", "lockstep pin prod-002 --json"),
    "unpin": ("lockstep unpin prod-002", "lockstep unpin prod-002 --json"),
    "prune": ("lockstep prune --dry-run", "lockstep prune --yes"),
    "export": (
        "lockstep export prod-003 shop.lockstep",
        "lockstep export prod-003 /mnt/usb/shop.lockstep --images",
    ),
    "import": (
        "lockstep import shop.lockstep",
        "lockstep import shop.lockstep --passphrase-file /run/keys/old-store",
    ),
    "verify": ("lockstep verify prod-002", "lockstep verify --read-data"),
    "repair": ("lockstep repair", "lockstep repair --store /srv/snapshots"),
    "drill": ("lockstep drill", "lockstep drill prod-002 --at arrival"),
    "encrypt": ("lockstep encrypt", "lockstep encrypt --yes"),
    "rekey": ("lockstep rekey", "lockstep rekey --ask < new-passphrase"),
    "stop": ("lockstep stop", 'lockstep stop --yes -m "the disk smokes"'),
    "remove": ("lockstep remove", "lockstep remove --yes --json | jq .volumes"),
    "recover": ("lockstep recover", "lockstep recover --json | jq '{unfinished, done, live}'"),
    "guard": ("lockstep guard --print-unit", "lockstep guard --once", "lockstep guard --json"),
    "doctor": ("lockstep doctor", "lockstep doctor --json | jq '.checks[] | .remedy'"),
    "compose": ("lockstep compose ps", "lockstep compose logs --tail 50 web"),
    "cancel": ("lockstep cancel", "lockstep cancel --yes"),
    "version": ("lockstep version", "lockstep version --json"),
    "completion": (
        "lockstep completion bash > /etc/bash_completion.d/lockstep",
        "lockstep completion fish > ~/.config/fish/completions/lockstep.fish",
    ),
    "schema": ("lockstep schema", "lockstep schema preview", "lockstep schema --json | jq .names"),
    "metrics": ("lockstep metrics", "lockstep metrics --days 30 --json"),
    "report": ("lockstep report", "lockstep report --output /srv/www/releases.html"),
    "serve": ("lockstep serve", "lockstep serve --port 8700"),
    "snapshot": ("lockstep snapshot", "lockstep snapshot --group orders"),
    "snapshot live": ("lockstep snapshot live", "lockstep snapshot live db-data uploads"),
    "snapshot create": (
        "lockstep snapshot create wiki-data",
        "lockstep snapshot create ./uploads --live",
    ),
    "snapshot list": ("lockstep snapshot list", "lockstep snapshot list --store /srv/snapshots"),
    "snapshot restore": (
        "lockstep snapshot restore 6d20f3 ./again --path pages/home",
        "lockstep snapshot restore 6d20f3 wiki-data --in-place",
    ),
    "snapshot rm": ("lockstep snapshot rm 6d20f3", "lockstep snapshot rm 6d20f3 91ab02 --yes"),
    "notify": ("lockstep notify test", "lockstep notify log"),
    "notify test": ("lockstep notify test", "lockstep notify test --json"),
    "notify log": ("lockstep notify log", "lockstep notify log -n 5 --json"),
    "config": ("lockstep config", "lockstep config --json"),
    "config get": ("lockstep config get release", "lockstep config get window.last"),
    "config set": (
        "lockstep config set release prod-002",
        "lockstep config set --secret secrets.DB_PASSWORD",
        "lockstep config set window.last 5 --json | jq .old",
    ),
    "config rm": ("lockstep config rm retry", "lockstep config rm --path gates.web --json"),
    "incident": ("lockstep incident list", "lockstep incident show"),
    "incident list": ("lockstep incident list", "lockstep incident list -n 5 --json"),
    "incident show": ("lockstep incident show", "lockstep incident show prod-003 --json"),
    "incident export": (
        "lockstep incident export",
        "lockstep incident export prod-003 -o for-the-vendor.zip",
    ),
    "incident note": (
        'lockstep incident note "it was the cache"',
        'lockstep incident note "see ticket 4711" --of prod-003 --json',
    ),
    "stack": ("lockstep stack ls", "lockstep stack history -n 5"),
    "stack history": ("lockstep stack history", "lockstep stack history -n 5 --json"),
    "stack output": ("lockstep stack output release", "lockstep stack output --json"),
    "stack ls": ("lockstep stack ls", "lockstep stack ls --json"),
}


def attach(app: typer.Typer, words: tuple[str, ...] = ()) -> None:
    """Show every command of an application, and of its groups, its examples below its help."""
    for command in app.registered_commands:
        command.epilog = _epilog(command.epilog, (*words, str(command.name)))
    for group in app.registered_groups:
        if group.typer_instance is not None:
            attach(group.typer_instance, (*words, str(group.name)))
            group.epilog = _epilog(group.epilog, (*words, str(group.name)))


def _epilog(said: Any, words: tuple[str, ...]) -> str:
    before = said if isinstance(said, str) else ""
    found = EXAMPLES.get(" ".join(words), ())
    lines = [before, "Examples:", *found] if found else [before]
    return "\n\n".join(filter(None, lines))
