"""What a preflight says of a job's brokers, and that it says it before there is a job: it looks, and makes nothing."""
import ctypes
import os
import socket
import time

import pytest

from conftest import free_port, wait_for

NONCE_IS_MENDED = ctypes.CDLL("librdkafka.so.1").rd_kafka_version() >= 0x02060100


def streamer(kafka, listener="plain", user="dmsr", password=None, **options):
    """As a job has it, for one of the broker's listeners."""
    client = kafka.client(listener, user=user, password=password)
    found = {"type": "kafka", "bootstrap_servers": client["bootstrap.servers"], "security": client["security.protocol"], "prefix": kafka.prefix}
    if "ssl.ca.location" in client:
        found["ssl_ca"] = client["ssl.ca.location"]
    if "sasl.mechanism" in client:
        found.update(sasl_mechanism="PLAIN", user=client["sasl.username"], password=client["sasl.password"])
    return {**found, **options}


def connection(dmsrd, of):
    """id -> check, of POST /connections/test."""
    reply = dmsrd.api("POST", "/connections/test", {"role": "streamer", **of})
    assert all(c["part"] == "streamer" for c in reply["checks"]) and reply["ok"] == all(c["level"] != "error" for c in reply["checks"])
    assert all(c["object"] in (of["bootstrap_servers"], "sasl_mechanism" if c["id"] == "kafka.scram" else "kafka" if c["id"] == "kafka.option" else None)
               for c in reply["checks"])
    return {c["id"]: c for c in reply["checks"]}


@pytest.fixture
def source(pg):
    db = pg.database("shop")
    db.sql("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)")
    return db


@pytest.fixture
def look(dmsrd, source):
    def look(of, targets=True):
        """The streamer's checks of a job that is not made."""
        job = {"name": "shop", "source": source.connection(), "streamer": of, "targets": [{"connector": "null"}] if targets else []}
        reply = dmsrd.api("POST", "/jobs?dry_run=1", job)
        return [c for c in reply["checks"] if c["part"] == "streamer"]
    return look


def bad(checks, level="error"):
    return sorted((c["id"], c["object"]) for c in checks if c["level"] == level)


@pytest.mark.parametrize("listener", ["plain", "tls", "sasl_tls", "sasl"])
def test_a_broker_that_answers(kafka, dmsrd, listener):
    found = connection(dmsrd, streamer(kafka, listener))
    assert list(found) == ["kafka.brokers"] and found["kafka.brokers"]["level"] == "ok"


def test_transactions(start_kafka, look):
    kafka = start_kafka(settings=["transaction.max.timeout.ms=60000", "transaction.state.log.replication.factor=3"])
    checks = look(streamer(kafka, exactly_once=True, transaction_topic=True, create_topics=False))
    assert ("kafka.topic-missing", f"{kafka.prefix}.__transactions") in bad(checks)
    assert ("kafka.transaction-timeout", "transaction_timeout") in bad(checks) and ("kafka.topic-missing", f"{kafka.prefix}.__positions") in bad(checks)
    assert ("kafka.transactions", kafka.bootstrap) in bad(checks, "warning")
    checks = look(streamer(kafka, create_topics=False))
    assert not [c for c in checks if "transaction" in c["id"] or "__positions" in c["object"]]


def test_a_password_for_nobody(pg, kafka, dmsrd, look):
    found = look({**streamer(kafka), "password": "secret"})
    assert ("kafka.password", "password") in bad(found, "warning"), found
    assert ("kafka.password", "password") not in bad(look(streamer(kafka)), "warning")
    source = pg.database("p")
    dmsrd.job("p", source.connection(), [], streamer={**streamer(kafka), "password": "secret"})
    wait_for("it is told", lambda: "a password is given" in str(dmsrd.api("GET", "/jobs/p/status")["warnings"]))


def test_brokers_are_elsewhere(start_kafka, pg, dmsrd):
    """One answers, and says that it is where nobody listens."""
    nowhere = f"127.0.0.1:{free_port()}"
    kafka = start_kafka(settings=[f"advertised.listeners=PLAIN://{nowhere}"])
    source = pg.database("p")
    dmsrd.job("p", source.connection(), [], streamer=streamer(kafka))
    error = wait_for("it says so", lambda: dmsrd.api("GET", "/jobs/p").get("error"), 60)
    assert error["code"] == "kafka.unreachable" and error["retriable"], error
    assert nowhere in error["message"] and "advertised.listeners" in error["message"] + error["suggestion"], error


def test_nobody_answers(dmsrd):
    began = time.monotonic()
    found = connection(dmsrd, {"type": "kafka", "bootstrap_servers": f"127.0.0.1:{free_port()}"})
    assert list(found) == ["kafka.unreachable"] and "refused" in found["kafka.unreachable"]["message"] and found["kafka.unreachable"]["retriable"]
    assert time.monotonic() - began < 10


def test_what_the_library_does_not_take(dmsrd, source):
    """A file of certificates that is not there: before the job and when it runs, and not a word of it when it is mended."""
    of = {"type": "kafka", "bootstrap_servers": f"127.0.0.1:{free_port()}", "security": "ssl", "ssl_ca": "/nowhere/ca.pem"}
    found = connection(dmsrd, of)
    assert list(found) == ["kafka.option"] and "/nowhere/ca.pem" in found["kafka.option"]["message"] and "ssl_ca" in found["kafka.option"]["fix"], found
    dmsrd.job("shop", source.connection(), [], streamer=of)
    error = dmsrd.wait_state("shop", "failed")["error"]
    assert error["code"] == "kafka.option" and "/nowhere/ca.pem" in error["message"] and "ssl_ca" in error["suggestion"], error
    assert "kafka.option" not in connection(dmsrd, {k: v for k, v in of.items() if k != "ssl_ca"})


def test_certificates_in_a_pipe(dmsrd, source, tmp_path):
    """Whoever opens it waits for somebody to write, and that would be all of dmsrd."""
    os.mkfifo(tmp_path / "ca.pem")
    of = {"type": "kafka", "bootstrap_servers": f"127.0.0.1:{free_port()}", "security": "ssl", "ssl_ca": str(tmp_path / "ca.pem")}
    found = connection(dmsrd, of)
    assert list(found) == ["kafka.option"] and "it is no file" in found["kafka.option"]["message"] and "ssl_ca" in found["kafka.option"]["fix"], found
    dmsrd.job("shop", source.connection(), [], streamer=of)
    error = dmsrd.wait_state("shop", "failed")["error"]
    assert error["code"] == "kafka.option" and f"{tmp_path}/ca.pem" in error["message"] and "ssl_ca" in error["suggestion"], error


@pytest.mark.parametrize("name", ["plugin.library.paths", "sasl.kerberos.kinit.cmd", "ssl.key.location", "ssl.keystore.location", "sasl.oauthbearer.token.endpoint.url",
                                  "debug", "properties"])
def test_no_property_of_the_library_is_an_option(dmsrd, source, name):
    """What would load code, run a command, read a file or fetch an address: not at a job, nor at a source or a look."""
    of = {"type": "kafka", "bootstrap_servers": "127.0.0.1:1", name: "/tmp/x"}
    reads = {**of, "connector": "kafka", "prefix": "p"}
    reads.pop("type")
    for path, body, at in (("/jobs", {"name": "shop", "source": source.connection(), "targets": [], "streamer": of}, f"/streamer/{name}"),
                           ("/jobs", {"name": "shop", "source": reads, "targets": [{"connector": "null", "name": "n"}]}, f"/source/{name}"),
                           ("/connections/test", {"role": "streamer", **of}, f"/{name}")):
        status, _, problem = dmsrd.call("POST", path, body)
        assert (status, [(e["pointer"], e["code"]) for e in problem["errors"]]) == (422, [(at, "unknown-key")]), problem
    assert dmsrd.api("GET", "/jobs")["items"] == []


@pytest.fixture
def silent():
    """The address of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as s:
        yield f"127.0.0.1:{s.getsockname()[1]}"


def test_a_broker_that_hangs(silent, dmsrd):
    began = time.monotonic()
    assert list(connection(dmsrd, {"type": "kafka", "bootstrap_servers": silent})) == ["kafka.unreachable"]
    assert time.monotonic() - began < 20


def test_who_is_not_let_in(kafka, dmsrd):
    found = connection(dmsrd, streamer(kafka, "sasl_tls", password="wrong"))
    assert list(found) == ["kafka.auth"] and "retriable" not in found["kafka.auth"]
    found = connection(dmsrd, {k: v for k, v in streamer(kafka, "tls").items() if k != "ssl_ca"})
    assert list(found) == ["kafka.tls"], found


@pytest.mark.parametrize("version", [3, 4])
def test_scram_of_an_old_library(request, dmsrd, version):
    broker = request.getfixturevalue("kafka" if version == 4 else "kafka3")
    found = connection(dmsrd, streamer(broker, "sasl", sasl_mechanism="SCRAM-SHA-256"))
    if NONCE_IS_MENDED:
        assert list(found) == ["kafka.brokers"]
    elif version == 4:
        assert list(found) == ["kafka.auth"] and "2.6.1" in found["kafka.auth"]["fix"]
    else:
        assert list(found) == ["kafka.brokers", "kafka.scram"] and found["kafka.scram"]["level"] == "warning"


def test_a_good_job_and_nothing_is_made(kafka, look):
    checks = look(streamer(kafka, layout="both", retention="7d"))
    assert bad(checks) == []
    # what the broker keeps for a time is all that there is to say
    assert bad(checks, "warning") == [("kafka.retention", f"{kafka.prefix}.__stream")]
    assert "168 hours" in next(c["message"] for c in checks if c["id"] == "kafka.retention")
    assert kafka.topics(kafka.prefix) == {}
    assert bad(look(streamer(kafka), targets=False), "warning") == []


def test_topics_that_are_there(kafka, look):
    p = kafka.prefix
    kafka.create(f"{p}.__stream", partitions=3, cleanup_policy="compact")
    kafka.create(f"{p}.__schemas", cleanup_policy="delete")
    kafka.create(f"{p}.public.a", partitions=2, cleanup_policy="compact", max_message_bytes=10000)
    kafka.create(f"{p}.public.b", partitions=4)
    checks = look(streamer(kafka, layout="both", partitions=4))
    assert bad(checks) == [("kafka.record-too-large", f"{p}.public.a"), ("kafka.topic-cleanup", f"{p}.__stream")]
    assert bad(checks, "warning") == [("kafka.topic-cleanup", f"{p}.__schemas"), ("kafka.topic-cleanup", f"{p}.public.a"),
                                      ("kafka.topic-partitions", f"{p}.__stream"), ("kafka.topic-partitions", f"{p}.public.a")]
    # one that keeps all for ever, made by hand
    kafka.delete(*kafka.topics(p))
    kafka.create(f"{p}.__stream", retention_ms=-1)
    kafka.create(f"{p}.__schemas", cleanup_policy="compact")
    checks = look(streamer(kafka, create_topics=False))
    assert [c["id"] for c in checks] == ["kafka.brokers"]
    checks = look(streamer(kafka, create_topics=False, layout="both"))
    assert bad(checks) == [("kafka.topic-missing", f"{p}.public.a"), ("kafka.topic-missing", f"{p}.public.b")]


def test_options_that_do_not_fit_the_brokers(kafka, look):
    p = kafka.prefix
    assert bad(look(streamer(kafka, replication=3))) == [("kafka.replication", "replication")]
    checks = look(streamer(kafka, record_bytes="2MiB"))
    assert bad(checks) == [("kafka.record-too-large", kafka.bootstrap)]
    assert "message.max.bytes" in next(c["fix"] for c in checks if c["level"] == "error")
    assert bad(look(streamer(kafka, layout="table"))) == [("kafka.layout", "layout")]
    assert bad(look(streamer(kafka, layout="both", codec="native"))) == [("kafka.layout", "layout")]
    assert bad(look(streamer(kafka, shape="flat"))) == [("kafka.codec", "codec")]
    assert bad(look(streamer(kafka, shape="flat"), targets=False)) == []
    assert bad(look(streamer(kafka, prefix=p + "x" * 250))) == [("kafka.topic-name", p + "x" * 250 + end) for end in (".__schemas", ".__stream")]


def test_who_may_not_make_topics(kafka, look):
    p = kafka.prefix
    checks = look(streamer(kafka, "sasl_tls", user="guest"))
    assert [c for c in bad(checks) if c[1]] == [("kafka.denied", f"{p}.__schemas"), ("kafka.denied", f"{p}.__stream")]
    assert ("kafka.describe", streamer(kafka, "sasl_tls")["bootstrap_servers"]) in bad(checks, "warning")


def test_a_question_that_nobody_waits_for(silent, dmsrd):
    """The daemon ends while the broker does not answer."""
    with pytest.raises(TimeoutError):
        dmsrd.call("POST", "/connections/test", {"role": "streamer", "type": "kafka", "bootstrap_servers": silent}, timeout=1)
    began = time.monotonic()
    assert dmsrd.stop() == 0 and time.monotonic() - began < 5
