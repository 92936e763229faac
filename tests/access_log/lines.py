"""Lines as HAProxy sends them."""


def line(number: int = 0, **changes: object) -> bytes:
    fields: dict[str, object] = {
        "time": "1795450568.341",
        "client": "127.0.0.1",
        "method": "GET",
        "status": 200,
        "head": 0,
        "queue": 1,
        "connect": 2,
        "response": 3,
        "total": 6,
        "sent": 285,
        "received": 792,
        "service": "web",
        "replica": "1",
        "retries": 0,
        "termination": "----",
        "id": "61f5f61239cce8a93feac265936c6776",
        "worker": 1795450568000000,
        "number": number,
        "token": "-",
        "subject": "-",
        "route": "/data",
        "protocol": "HTTP/1.1",
        "path": "/data/x",
    }
    return "\t".join(str(value) for value in {**fields, **changes}.values()).encode()
