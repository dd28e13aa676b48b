"""Sessions that write to a source while something else goes on."""
import random
import threading
import time


class Writers:
    """Two sessions that write, each its own rows, until stopped: statement(r, who) says what, in transactions of one or a few. last(who), if it is not empty,
    is the last of each transaction."""

    def __init__(self, server, database, seed=0):
        self.stopping, self.errors, self.done = threading.Event(), [], 0
        self.threads = [threading.Thread(target=self.run, args=(server, database, random.Random(seed * 10 + i), i), daemon=True) for i in range(2)]
        for t in self.threads:
            t.start()

    def statement(self, r, who):
        raise NotImplementedError

    def last(self, who):  # pylint: disable=unused-argument
        return ""

    def run(self, server, database, r, who):
        try:
            c = server.connect(database.name)
            c.autocommit = False
            cur = c.cursor()
            while not self.stopping.is_set():
                for _ in range(r.choice([1, 1, 3])):
                    cur.execute(self.statement(r, who))
                if self.last(who):
                    cur.execute(self.last(who))
                c.commit()
                self.done += 1
                time.sleep(0.004)
            c.close()
        except Exception as e:  # pylint: disable=broad-except
            self.errors.append(e)

    def stop(self):
        self.stopping.set()
        for t in self.threads:
            t.join(30)
        if self.errors:
            raise self.errors[0]
