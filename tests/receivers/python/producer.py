"""A producer in another language: publishes with nats-py alone, knowing only the subject.

argv    URL SUBJECT
stdin   one JSON document per line
stdout  the sequence of each, once JetStream has acknowledged it
"""

import asyncio
import os
import sys

sys.path.insert(0, os.environ["RECEIVER_PACKAGES"])

import nats  # noqa: E402


async def main(url, subject):
    client = await nats.connect(url)
    jetstream = client.jetstream()
    for number, line in enumerate(sys.stdin):
        headers = {"Fanfare-Idempotency-Key": f"nats-py-{number}"}
        stored = await jetstream.publish(subject, line.strip().encode(), headers=headers)
        print(stored.seq, flush=True)
    await client.close()


asyncio.run(main(*sys.argv[1:]))
