"""A TCP line to a server on 127.0.0.1: bytes dribble, connections hang, or are cut. A thread for each direction; nothing else is known of the bytes."""
import contextlib
import socket
import threading
import time


class Proxy:
    """piece, every: at most `piece` bytes of the server's every `every` seconds; both may change, and while is_stuck is set nothing passes. garble: bytes of a
    query, the next of which comes to the server as no SQL. lie: bytes that the server sends, and as many that come instead. change: what it makes of a
    piece of the client's bytes goes to the server, when it returns. A context manager."""

    def __init__(self, port, piece=None, every=0.0, lie=(b"", b""), change=None):
        self.port_there, self.piece, self.every = port, piece, every
        self.is_stuck, self.garble, self.lie, self.change = threading.Event(), None, lie, change
        self.sockets, self.is_closed = [], False
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.is_closed = True
        self.listener.close()
        self.cut()

    def accept(self):
        while not self.is_closed:
            with contextlib.suppress(OSError):
                here, _ = self.listener.accept()
                there = socket.create_connection(("127.0.0.1", self.port_there))
                for s in (here, there):
                    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self.sockets.append(s)
                threading.Thread(target=self.carry, args=(here, there, False), daemon=True).start()
                threading.Thread(target=self.carry, args=(there, here, True), daemon=True).start()

    def carry(self, a, b, is_from_server):
        with contextlib.suppress(OSError):
            while True:
                data = a.recv(self.piece if is_from_server and self.piece else 65536)
                while self.is_stuck.is_set() and not self.is_closed:
                    time.sleep(0.02)
                if not data:
                    break
                if self.garble and not is_from_server and self.garble in data:
                    data, self.garble = data.replace(self.garble, b"?" * len(self.garble)), None
                if self.change and not is_from_server:
                    data = self.change(data)
                if is_from_server and self.lie[0]:
                    data = data.replace(*self.lie)
                time.sleep(self.every if is_from_server else 0)
                b.sendall(data)
        for s in (a, b):
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
        a.close()  # who writes to it would wait for room, and not see that there is nobody

    def cut(self):
        """As a network does that loses all its connections at once."""
        sockets, self.sockets = self.sockets, []
        for s in sockets:
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
