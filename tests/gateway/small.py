"""A server that says which replica it is, for the tests of balancing; ?hold=SECONDS makes it take its time."""

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
    async with await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1])) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
