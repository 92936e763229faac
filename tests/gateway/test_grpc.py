"""gRPC: HTTP/2 in cleartext on both sides, trailers and dialogues untouched."""

import queue
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from tests.support import Up


@pytest.fixture
def channel(gate: Up) -> Iterator[grpc.Channel]:
    address = str(gate.project.config.gateway.bind)
    with grpc.insecure_channel(address) as channel:
        yield channel


def test_a_call_with_trailers(channel: grpc.Channel, make_token: Callable[..., str]) -> None:
    metadata = (("authorization", f"Bearer {make_token()}"),)
    answer, call = channel.unary_unary("/tests.Rpc/Shout").with_call(b"hello", metadata=metadata, timeout=20)
    assert answer == b"HELLO"
    assert ("said-by", "rpc") in [tuple(pair) for pair in call.trailing_metadata()]
    with pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary("/tests.Rpc/Refuse")(b"x", metadata=metadata, timeout=20)
    assert _code(refused.value) is grpc.StatusCode.NOT_FOUND


def test_a_dialogue(channel: grpc.Channel, make_token: Callable[..., str]) -> None:
    """Each word is answered before the next is said, so nothing may be gathered on the way."""
    said: queue.Queue[bytes | None] = queue.Queue()
    metadata = (("authorization", f"Bearer {make_token()}"),)
    answers = channel.stream_stream("/tests.Rpc/Converse")(iter(said.get, None), metadata=metadata, timeout=20)
    for word in (b"one", b"two", b"three"):
        said.put(word)
        assert next(answers) == word.upper()
    said.put(None)
    assert list(answers) == []


def test_no_token_no_call(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary("/tests.Rpc/Shout")(b"x", timeout=20)
    assert _code(refused.value) is grpc.StatusCode.UNAUTHENTICATED


def _code(error: Any) -> grpc.StatusCode:
    code: grpc.StatusCode = error.code()
    return code
