"""What a worker and its handler processes tell each other: MessagePack, each message after its length."""

import asyncio
import uuid
from typing import Any

import msgspec

from escala.tasks.store.attempts import Claimed
from escala.tasks.worker.attempt import Outcome, Reason

_LENGTH_BYTES = 4
_encoder = msgspec.msgpack.Encoder()


class Run(msgspec.Struct, tag=True):
    """Run this job."""

    job: Claimed
    owner: uuid.UUID


class Interrupt(msgspec.Struct, tag=True):
    """Interrupt the running job."""

    reason: Reason


class Ready(msgspec.Struct, tag=True):
    """The tasks are loaded."""


class Progress(msgspec.Struct, tag=True):
    fraction: float
    message: str


class Ended(msgspec.Struct, tag=True):
    outcome: Outcome


_requests: msgspec.msgpack.Decoder[Run | Interrupt] = msgspec.msgpack.Decoder(Run | Interrupt)
_reports: msgspec.msgpack.Decoder[Ready | Progress | Ended] = msgspec.msgpack.Decoder(Ready | Progress | Ended)


def send(writer: asyncio.StreamWriter, message: Any) -> None:
    payload = _encoder.encode(message)
    writer.write(len(payload).to_bytes(_LENGTH_BYTES) + payload)


async def read_request(reader: asyncio.StreamReader) -> Run | Interrupt:
    """Return the next message to a process. Raises asyncio.IncompleteReadError at the end."""
    return _requests.decode(await _read(reader))


async def read_report(reader: asyncio.StreamReader) -> Ready | Progress | Ended:
    """Return the next message of a process. Raises IncompleteReadError or ConnectionError when it has ended."""
    return _reports.decode(await _read(reader))


async def _read(reader: asyncio.StreamReader) -> bytes:
    size = int.from_bytes(await reader.readexactly(_LENGTH_BYTES))
    return await reader.readexactly(size)
