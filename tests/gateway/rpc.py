"""A gRPC server without generated code: ``python -m tests.gateway.rpc PORT``. Bodies are bytes as they are."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc


def shout(request: bytes, context: grpc.ServicerContext) -> bytes:
    context.set_trailing_metadata((("said-by", "rpc"),))
    return request.upper()


def converse(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
    for request in requests:
        yield request.upper()


def refuse(request: bytes, context: grpc.ServicerContext) -> bytes:
    context.abort(grpc.StatusCode.NOT_FOUND, "not here")
    raise AssertionError


def main() -> None:
    handlers = grpc.method_handlers_generic_handler(
        "tests.Rpc",
        {
            "Shout": grpc.unary_unary_rpc_method_handler(shout),
            "Converse": grpc.stream_stream_rpc_method_handler(converse),
            "Refuse": grpc.unary_unary_rpc_method_handler(refuse),
        },
    )
    server = grpc.server(ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((handlers,))
    server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
