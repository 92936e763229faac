import asyncio

from escala.replica.protocol import CoalescingTransport


class Recorder:
    def __init__(self) -> None:
        self.calls: list[object] = []

    def write(self, data: bytes) -> None:
        self.calls.append(data)

    def close(self) -> None:
        self.calls.append("close")

    def is_closing(self) -> bool:
        return "close" in self.calls


async def test_writes_of_one_turn_are_one_write() -> None:
    recorder = Recorder()
    transport = CoalescingTransport(recorder, asyncio.get_running_loop())  # type: ignore[arg-type]
    transport.write(b"head")
    transport.write(b"body")
    assert recorder.calls == []
    await asyncio.sleep(0)
    assert recorder.calls == [b"headbody"]
    transport.write(b"next")
    await asyncio.sleep(0)
    assert recorder.calls == [b"headbody", b"next"]


async def test_closing_writes_what_is_left_first() -> None:
    recorder = Recorder()
    transport = CoalescingTransport(recorder, asyncio.get_running_loop())  # type: ignore[arg-type]
    transport.write(b"last")
    transport.close()
    await asyncio.sleep(0)
    assert recorder.calls == [b"last", "close"]
    assert transport.is_closing()
