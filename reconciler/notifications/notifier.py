"""The process that tells one receiver: `python -m reconciler.notifications.notifier`.

It has a session of its own and limits, so nobody waits for a server, and no server that hangs
keeps others from being told. The document comes by standard input; each try goes to the log.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from reconciler import masking
from reconciler.notifications import notifylog
from reconciler.notifications.notifylog import Entry, Try

_WHY = 300
"""Characters of what went wrong."""


class Unusable(Exception):
    """No other try would differ."""


class NotTaken(Exception):
    """The server was asked, and did not take it."""


def main() -> None:
    """Read the document, send, end: also when the server still hangs."""
    os.nice(10)
    document: Mapping[str, Any] = json.load(sys.stdin)
    masking.hide(document["hidden"])
    with suppress(Exception):  # a try says so; its time is not for this
        importlib.import_module("apprise")
    began = time.monotonic()
    tries: tuple[Try, ...] = ()
    waits = list(document["waits"])
    while True:
        tried, final = _try(document)
        tries = (*tries, tried)
        final = final or not waits
        told = {
            "result": tried.result if final else "again",
            "why": tried.why,
            "seconds": round(time.monotonic() - began, 2),
            "tries": tries,
        }
        notifylog.write(Path(document["log"]), Entry.model_validate({**document["entry"], **told}))
        if final:
            os._exit(0)  # a try that hangs has a thread
        time.sleep(waits.pop(0))


def _try(document: Mapping[str, Any]) -> tuple[Try, bool]:
    """One try, and whether it was the last one."""
    limit = float(document["limit"])
    ended: list[tuple[Try, bool]] = []

    def send() -> None:
        began = time.monotonic()
        why, final = "", True
        try:
            _send(document)
        except (NotTaken, Unusable) as error:
            why, final = str(error), isinstance(error, Unusable)
        except Exception as error:  # a plugin may raise anything
            why, final = f"{type(error).__name__}: {error}", False
        seconds = round(time.monotonic() - began, 2)
        shown = masking.masked(why)[:_WHY]
        ended.append((Try(result="failed" if why else "sent", seconds=seconds, why=shown), final))

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    thread.join(limit)
    late = Try(result="timed-out", seconds=limit, why=f"no answer within {limit:g} s")
    return ended[0] if ended else (late, False)


def _send(document: Mapping[str, Any]) -> None:
    """Raises what keeps it from being taken."""
    import apprise  # what it costs to import, only who sends has to pay

    asset = apprise.AppriseAsset(storage_mode=apprise.PersistentStoreMode.MEMORY)
    server = apprise.Apprise(asset=asset)
    if not server.add(document["url"]):
        raise Unusable("Apprise cannot use such a URL")
    result = server.notify(
        body=document["body"] or document["subject"],
        title=document["subject"],
        body_format=apprise.NotifyFormat.TEXT,
    )
    if not result:
        raise NotTaken(" ".join(e.message for e in result.logs()) or "not sent")


if __name__ == "__main__":
    main()
