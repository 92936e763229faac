"""A server that says which replica it is, for the tests of balancing: ``python -m tests.gateway.small PORT_OR_SOCKET``.

?hold=SECONDS makes it take its time.
"""

import asyncio
import contextlib
import os
import sys


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    body = os.environ["ESCALA_REPLICA"].encode()
    with contextlib.suppress(ConnectionError):  # the gateway's checks break off
        while line := await reader.readline():
            while await reader.readline() != b"\r\n":
                pass
            hold = line.partition(b"hold=")[2].split(b" ")[0]
            await asyncio.sleep(float(hold or 0))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    writer.close()


async def main() -> None:
    where = sys.argv[1]
    start = (
        asyncio.start_server(serve, "127.0.0.1", where) if where.isdigit() else asyncio.start_unix_server(serve, where)
    )
    async with await start as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
