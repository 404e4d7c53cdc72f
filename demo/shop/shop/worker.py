"""Ships what was ordered: takes order numbers from the queue and notes each parcel."""

from __future__ import annotations

import signal
import sys
import time

import psycopg
import redis

from shop.backends import Database, connect_cache


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    database, queue = Database(), connect_cache()
    print("worker waits for parcels")
    while True:
        try:
            ship_next(database, queue)
        except (psycopg.Error, redis.RedisError) as error:
            print(f"worker: {str(error).strip()}; trying again")
            time.sleep(1)


def ship_next(database: Database, queue: redis.Redis) -> None:
    """Leaves the number in the queue until its parcel is noted, so that none is forgotten."""
    number = queue.lindex("parcels", -1)
    if number is None:
        time.sleep(0.1)
        return
    database.rows(
        "INSERT INTO shipments (order_id) VALUES (%s) ON CONFLICT DO NOTHING", (int(number),)
    )
    queue.lrem("parcels", -1, str(int(number)))


if __name__ == "__main__":
    main()
