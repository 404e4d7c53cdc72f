"""The process that tells one receiver: `python -m reconciler.notifier`.

It has a session of its own and a limit, so nobody waits for a server, and no server that hangs
keeps others from being told. The document comes by standard input; what became of it goes to the
log.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reconciler import masking, notifylog

_WHY = 300
"""Characters of what went wrong."""


def main() -> None:
    """Read the document, send, end: also when the server still hangs."""
    os.nice(10)
    document: Mapping[str, Any] = json.load(sys.stdin)
    masking.hide(document["hidden"])
    began = time.monotonic()

    def end(result: str, why: str = "") -> None:
        seconds = round(time.monotonic() - began, 2)
        told = {"result": result, "seconds": seconds, "why": masking.masked(why)[:_WHY]}
        notifylog.write(
            Path(document["log"]), notifylog.Entry.model_validate({**document["entry"], **told})
        )
        os._exit(0)

    limit = float(document["limit"])
    watch = threading.Timer(limit, end, ("timed-out", f"no answer within {limit:g} s"))
    watch.daemon = True
    watch.start()
    try:
        why = _send(document)
    except Exception as error:  # a plugin may raise anything
        why = f"{type(error).__name__}: {error}"
    end("sent" if why is None else "failed", why or "")


def _send(document: Mapping[str, Any]) -> str | None:
    """None when it was taken, else why not."""
    import apprise  # what it costs to import, only who sends has to pay

    asset = apprise.AppriseAsset(storage_mode=apprise.PersistentStoreMode.MEMORY)
    server = apprise.Apprise(asset=asset)
    if not server.add(document["url"]):
        return "Apprise cannot use such a URL"
    result = server.notify(
        body=document["body"] or document["subject"],
        title=document["subject"],
        body_format=apprise.NotifyFormat.TEXT,
    )
    return None if result else " ".join(e.message for e in result.logs()) or "not sent"


if __name__ == "__main__":
    main()
