"""The PostgreSQL source and the line to its server: one that dribbles, hangs or is cut, and one that is not who it should be. Nobody is held up."""
import contextlib
import re
import socket
import threading
import time

import pytest

from conftest import wait_for
from feed import Feed, Script
from proxy import Proxy
from source import Dump
from test_probe import ask, bad, check, only
from test_source import KEYS, SMALL, TABLES, Work, db, free, server  # pylint: disable=unused-import

assert db and server


@pytest.fixture()
def tls(servers):
    server_ = servers(tls=True, settings=SMALL)
    yield server_
    with contextlib.closing(server_.connect("postgres")) as c:
        cur = c.cursor()
        cur.execute("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active")
        wait_for("slots are dropped", lambda: cur.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots") is None)


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_the_loop_ticks_through_a_dribbling_server(tls, secure):
    """Every answer comes in pieces of a few bytes; a timer of 10 ms goes on ticking."""
    db = tls.database()
    db.sql("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 100) i")
    words = ["sslmode=verify-full", f"sslrootcert={tls.dir}/ca.pem"] if secure else ["sslmode=disable"]
    with Proxy(tls.port, piece=16, every=0.004) as proxy:
        d = Dump(db, "table=public.*", "connect_timeout=60s", *words, port=proxy.port).start(seconds=100)
        d.streaming(100)
        db.sql("UPDATE t SET v = 'w' WHERE id <= 20")
        wait_for("the changes", lambda: d.replica().ops.get("u", 0) == 20, 60)
        d.stop()
    ticks, slept, work_ms = d.held()
    assert ticks > 20 and slept < 10 and work_ms < 50, (ticks, slept, work_ms)  # who waited for an answer of 10 KB would sleep 50 times
    d.same()


def torn(d):
    return int(re.findall(r"^torn: (\d+)", d.text(), re.M)[-1])


def test_a_transaction_is_not_torn_since_the_rest_is_under_way(db):
    """It comes in pieces, and the socket runs dry in the middle of most."""
    db.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    with Proxy(db.server.port, piece=200, every=0.001) as proxy:
        d = Dump(db, "table=public.*", port=proxy.port).start().streaming()
        for n in range(40):
            db.sql(f"INSERT INTO t SELECT {n} * 10 + i, md5(i::text) FROM generate_series(1, 9) i")
        d.caught_up().stop()
    d.same()
    assert torn(d) < 10  # but for those whose rest was long in coming, on a busy machine


def test_what_is_whole_does_not_wait_for_a_transaction_that_is_long_in_coming(db):
    db.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    with Proxy(db.server.port) as proxy:
        d = Dump(db, "table=public.*", port=proxy.port).start().streaming()
        proxy.piece, proxy.every = 256, .04
        db.sql("BEGIN; INSERT INTO t VALUES (-1, 'small'); COMMIT; BEGIN; INSERT INTO t SELECT i, repeat('x', 200) FROM generate_series(1, 60) i; COMMIT")
        wait_for("the small one", lambda: any(line[0] == "c" and line[4]["id"] == "-1" for line in d.lines()))
        assert len(d.lines()) < 60
        d.caught_up().stop()
    d.same()
    assert torn(d) >= 3


def test_a_server_whom_nobody_vouches_for(tls):
    """Its certificate is good, and of an authority that the job does not know."""
    db = tls.database()
    db.sql("CREATE TABLE t (id int PRIMARY KEY)")
    d = Dump(db, "table=public.*", "sslmode=verify-full", "sslrootcert=/etc/ssl/certs/ca-certificates.crt")
    assert d.start().failure()[0] == "source.tls"


@contextlib.contextmanager
def slow_names(directory, after):
    """A name server that takes its time and knows one address. Gives the file that names it, and the questions."""
    asked = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))

        def answer(data, who):
            end = data.index(0, 12) + 5
            has = data[end - 4:end - 2] == b"\0\1"  # an A; else there is none
            s.sendto(data[:2] + b"\x81\x80\0\1" + bytes([0, has]) + bytes(4) + data[12:end] + b"\xc0\x0c\0\1\0\1\0\0\0\x01\0\x04\x7f\0\0\1" * has, who)

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    asked.append(s.recvfrom(1500))
                    threading.Timer(after, answer, asked[-1]).start()
        threading.Thread(target=serve, daemon=True).start()
        (directory / "resolv.conf").write_text(f"nameserver 127.0.0.1:{s.getsockname()[1]}\noptions timeout:5\n")
        yield directory / "resolv.conf", asked


def test_the_loop_ticks_while_a_name_is_asked_for(tls, tmp_path):
    db = tls.database()
    db.sql("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'x')")
    with slow_names(tmp_path, 1) as (conf, asked):
        d = Dump(db, "table=public.*", "host=db.dmsr.invalid", f"resolv={conf}").start().streaming()
        db.sql("INSERT INTO t VALUES (2, 'y')")
        d.caught_up().stop()
    assert asked and b"dmsr\x07invalid" in asked[0][0].lower()
    ticks, slept, work_ms = d.held()
    assert ticks > 50 and slept < 10 and work_ms < 50, (ticks, slept, work_ms)
    d.same()


def test_a_server_of_another_name(tls):
    """Its certificate is of an authority that the job trusts, for localhost and 127.0.0.1: verify-full asks whether it is who was meant, verify-ca does not."""
    db = tls.database()
    db.sql("CREATE TABLE t (id int PRIMARY KEY)")
    ca = f"sslrootcert={tls.dir}/ca.pem"
    for host, mode in (("localhost", "verify-full"), ("127.0.0.1", "verify-full"), ("0.0.0.0", "verify-ca")):
        assert not bad(check(db, "source", f"host={host}", f"sslmode={mode}", ca)), (host, mode)
    for role in ("source", "target"):
        found, = ask(db, role, "check", "host=0.0.0.0", "sslmode=verify-full", ca)["checks"]
        assert (found["id"], found["level"], found["retriable"]) == (f"{role}.tls", "error", False), found
        assert "does not match host name" in found["message"], found


def test_how_sure_a_connection_is(tls):
    """What a preflight says of it, and what a target's refusal comes to."""
    db = tls.database()
    db.sql("CREATE TABLE t (id int PRIMARY KEY)")
    for mode, says in (("disable", "the connection to 0.0.0.0 is not encrypted"), ("require", "nothing proves that the server is 0.0.0.0")):
        found = only(check(db, "source", "host=0.0.0.0", f"sslmode={mode}"), "postgres.tls")
        assert found["level"] == "warning" and says in found["message"] and found["fix"] == '"sslmode": "verify-full"', found
    words = {"sslmode": "verify-full", "sslrootcert": f"{tls.dir}/ca.pem"}
    found = only(check(db, "source", *(f"{k}={v}" for k, v in words.items())), "postgres.tls")
    assert found["level"] == "ok" and "name was verified" in found["message"], found
    feed = Feed(db)
    said = feed.run(Script(), sslmode="verify-full", sslrootcert="/etc/ssl/certs/ca-certificates.crt")
    assert said.failed_id == "target.tls" and "retriable=0" in said.failed and db.name in said.failed and "check sslmode and sslrootcert" in said.failed, said
    feed.ok(Script(), **words)


def test_a_server_that_hangs_while_we_connect(tls):
    db = tls.database()
    db.sql("CREATE TABLE t (id int PRIMARY KEY)")
    with Proxy(tls.port) as proxy:
        proxy.is_stuck.set()
        d = Dump(db, "table=public.*", port=proxy.port).start("connect_timeout=2s")
        assert d.failure(10)[:2] == ("source.unreachable", True)
        ticks, slept, work_ms = d.held()
        assert ticks > 20 and slept < 10 and work_ms < 50, (ticks, slept, work_ms)


def test_connections_that_are_cut_again_and_again(tls):
    db = tls.database()
    db.sql(TABLES)
    work = Work(db)
    work.start()
    with Proxy(tls.port) as proxy:
        d = Dump(db, "table=public.*", "batch_bytes=16KiB", key=KEYS, port=proxy.port)
        for i in range(8):
            d.start()
            time.sleep(0.15 + 0.1 * i)
            wait_for("it notices", lambda: proxy.cut() or d.p.poll() is not None, 60)
            assert d.failure()[1], "each of them is a reason to try again"
            free(db)
        work.stop()
        d.start().streaming().caught_up().stop()
    d.same()
