"""A TCP line to a server on this machine that can be cut, slowed down or silenced."""
import select
import socket
import threading
import time


class Line:
    def __init__(self, port):
        self.to = port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.pairs, self.lock = [], threading.Lock()
        self.pause, self.bytes, self.is_mute, self.is_open = 0.0, 65536, False, True
        threading.Thread(target=self.accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.is_open = False
        self.listener.close()
        self.cut()

    def accept(self):
        while self.is_open:
            try:
                client, _ = self.listener.accept()
                server = socket.create_connection(("127.0.0.1", self.to))
            except OSError:
                continue
            with self.lock:
                self.pairs.append((client, server))
            threading.Thread(target=self.carry, args=(client, server), daemon=True).start()

    def carry(self, client, server):
        try:
            while True:
                for s in select.select([client, server], [], [], 1)[0]:
                    data = s.recv(self.bytes)
                    if not data:
                        raise OSError
                    if self.is_mute:
                        continue
                    if self.pause:
                        time.sleep(self.pause)
                    (server if s is client else client).sendall(data)
        except (OSError, ValueError):
            client.close()
            server.close()

    def cut(self):
        """Every connection that is open ends at once; new ones are taken."""
        with self.lock:
            for pair in self.pairs:
                for s in pair:
                    try:
                        s.shutdown(socket.SHUT_RDWR)
                    except OSError:
                        pass
            self.pairs.clear()

    def delay(self, seconds, bytes_at_once):
        self.pause, self.bytes = seconds, bytes_at_once

    def mute(self):
        """Takes what is sent and passes nothing on."""
        self.is_mute = True
