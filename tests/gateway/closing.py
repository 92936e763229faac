"""A server that closes each connection without an answer at its second request: as one that gave up waiting for it."""

import socket
import sys
import threading

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def serve(connection: socket.socket) -> None:
    with connection:
        if connection.recv(65536):
            connection.sendall(ANSWER)
            connection.recv(65536)


def main() -> None:
    with socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=64) as listening:
        while True:
            connection, _ = listening.accept()
            threading.Thread(target=serve, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main()
