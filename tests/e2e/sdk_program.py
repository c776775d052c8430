"""PyPI's ``centrifuge-python`` as a program: prints what it hears, one JSON line each, until its input ends.

A process of its own, because the SDK needs an event loop and playwright holds the test's thread.
First argument: the socket's URL; the token comes by the environment variable TOKEN.
"""

import asyncio
import json
import os
import sys

from centrifuge import Client, ClientEventHandler, ConnectedContext, ServerPublicationContext


class Printer(ClientEventHandler):
    """Prints server-side publications."""

    async def on_connected(self, _context: ConnectedContext) -> None:
        print(json.dumps({"connected": True}), flush=True)

    async def on_publication(self, context: ServerPublicationContext) -> None:
        line = {"channel": context.channel, "offset": context.pub.offset, "data": context.pub.data}
        print(json.dumps(line), flush=True)


async def main() -> None:
    """Listen until standard input is closed."""
    client = Client(sys.argv[1], token=os.environ["TOKEN"], events=Printer())
    await client.connect()
    await asyncio.to_thread(sys.stdin.read)
    await client.disconnect()


asyncio.run(main())
