"""A queue: `web` takes jobs into Redis and `worker` writes what it made of them into a folder."""

import http.server
import os
import pathlib
import signal
import socket
import sys


def redis(*words: str) -> str | None:
    """One command of Redis, and its answer; the password comes from the environment."""
    with socket.create_connection(("redis", 6379), timeout=60) as connection:
        talk = connection.makefile("rwb")
        for said in (("AUTH", os.environ["REDIS_PASSWORD"]), words):
            talk.write(b"*%d\r\n" % len(said))
            for word in said:
                talk.write(b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()))
            talk.flush()
            answer = _answer(talk)
        return answer


def _answer(talk) -> str | None:  # type: ignore[no-untyped-def]
    line = talk.readline().strip()
    kind, rest = line[:1], line[1:]
    if kind == b"-":
        raise RuntimeError(rest.decode())
    if kind == b"*":
        return [_answer(talk) for _ in range(int(rest))][-1] if int(rest) > 0 else None
    if kind == b"$":
        return talk.read(int(rest) + 2)[:-2].decode() if int(rest) >= 0 else None
    return str(rest.decode())


class Web(http.server.BaseHTTPRequestHandler):
    def answer(self, code: int, text: str) -> None:
        self.send_response(code)
        self.end_headers()
        self.wfile.write(text.encode())

    def do_GET(self) -> None:
        done = redis("GET", "done") or 0
        self.answer(200, f"version {os.environ['VERSION']}, {done} jobs done\n")

    def do_POST(self) -> None:
        job = self.rfile.read(int(self.headers["Content-Length"])).decode()
        redis("RPUSH", "jobs", job)
        self.answer(201, "queued\n")

    def log_message(self, *said: object) -> None:
        pass


def work() -> None:
    """A job stays in the queue's list `doing` until what it gave is written."""
    while True:
        job = redis("BLMOVE", "jobs", "doing", "LEFT", "RIGHT", "1")
        if job is not None:
            pathlib.Path("/results", f"{redis('INCR', 'done')}.txt").write_text(job.upper())
            redis("LREM", "doing", "1", job)


signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
if sys.argv[1] == "web":
    http.server.ThreadingHTTPServer(("", 8000), Web).serve_forever()
work()
