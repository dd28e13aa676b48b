"""Topics of tables that somebody changes under the job: deleted, made anew, with more partitions."""
import collections
import json
import os
import pathlib

import pytest
from confluent_kafka.admin import NewPartitions

from conftest import wait_for
from test_kafka import SMALL, as_table, caught_up, failed, position, read, source_table, streamer


def begin(pg, kafka, dmsrd, **options):
    source = pg.database("k")
    source.psql(SMALL + "CREATE TABLE other (id integer PRIMARY KEY); INSERT INTO other VALUES (1)")
    dmsrd.job("k", source.connection(), [], streamer=streamer(kafka, **options))
    dmsrd.wait_state("k", "running")
    caught_up(dmsrd, "k", source)
    return source, f"{kafka.prefix}.public.t"


def is_lost(dmsrd):
    assert "POST /jobs/k/tables/public.t/reload" in failed(dmsrd, "kafka.topic-lost")["suggestion"]


def is_source(kafka, source, topic):
    assert as_table(kafka.records(topic)) == source_table(source, "t", ["id"])


@pytest.mark.parametrize("options", [{}, {"exactly_once": True}, {"layout": "both"}], ids=["table", "exact", "both"])
@pytest.mark.parametrize("when", ["running", "stopped", "killed", "stopped and made"])
def test_one_that_was_made_anew(pg, kafka, daemon, when, options):
    daemon.start()
    source, topic = begin(pg, kafka, daemon, **options)
    if "stopped" in when:
        daemon.api("POST", "/jobs/k/stop")
        daemon.wait_state("k", "stopped")
    elif when == "killed":
        daemon.kill()
    kafka.delete(topic)
    if when in ("running", "stopped and made"):
        kafka.create(topic)
    source.psql("INSERT INTO other VALUES (2); UPDATE t SET v = 'afterwards' WHERE id <= 3")
    if "stopped" in when:
        daemon.api("POST", "/jobs/k/start")
    elif when == "killed":
        daemon.start()
    is_lost(daemon)
    source.psql("DELETE FROM t WHERE id = 9")
    daemon.api("POST", "/jobs/k/start")
    is_lost(daemon)  # although what was sent before stands there now
    daemon.kill()
    daemon.start()
    daemon.api("POST", "/jobs/k/tables/public.t/reload")
    daemon.api("POST", "/jobs/k/start")
    daemon.wait_state("k", "running")
    caught_up(daemon, "k", source)
    is_source(kafka, source, topic)
    daemon.kill()
    daemon.start()
    source.psql("UPDATE t SET v = 'in the end' WHERE id <= 5")
    caught_up(daemon, "k", source)
    is_source(kafka, source, topic)
    assert as_table(kafka.records(f"{kafka.prefix}.public.other")) == source_table(source, "other", ["id"])


def test_one_that_rows_go_past(pg, kafka, dmsrd):
    """A load of its table does not come there: all begins anew."""
    source, target, topic = pg.database("k"), pg.database("k_copy"), f"{kafka.prefix}.public.t"
    source.psql(SMALL)
    dmsrd.job("k", source.connection(), [target.connection(name="copy")], streamer=streamer(kafka, layout="both", load="direct"))
    dmsrd.wait_state("k", "running")
    source.psql("UPDATE t SET v = 'before' WHERE id <= 3")
    caught_up(dmsrd, "k", source)
    kafka.delete(topic)
    kafka.create(topic)
    source.psql("UPDATE t SET v = 'afterwards' WHERE id <= 3")
    suggestion = failed(dmsrd, "kafka.topic-lost")["suggestion"]
    assert "reload" not in suggestion and "DELETE /jobs/k/positions" in suggestion
    dmsrd.api("POST", "/jobs/k/stop")
    dmsrd.wait_state("k", "stopped")
    dmsrd.api("DELETE", "/jobs/k/positions")
    dmsrd.api("POST", "/jobs/k/start")
    dmsrd.wait_state("k", "running")
    source.psql("UPDATE t SET v = 'in the end' WHERE id <= 5")
    dmsrd.wait_equal(source, target)
    caught_up(dmsrd, "k", source)
    assert [json.loads(r.value)["after"]["v"] for r in kafka.records(topic)][-5:] == ["in the end"] * 5


def test_one_of_an_empty_table(pg, kafka, dmsrd):
    """Its load has no record, and counts all the same."""
    source, topic = begin(pg, kafka, dmsrd)
    kafka.delete(topic)
    kafka.create(topic)
    source.psql("DELETE FROM t")
    is_lost(dmsrd)
    dmsrd.api("POST", "/jobs/k/tables/public.t/reload")
    dmsrd.api("POST", "/jobs/k/start")
    dmsrd.wait_state("k", "running")
    for step in ("stop", "start"):
        dmsrd.api("POST", f"/jobs/k/{step}")
        dmsrd.wait_state("k", "stopped" if step == "stop" else "running")
    source.psql("INSERT INTO t VALUES (1, 'new')")
    caught_up(dmsrd, "k", source)
    is_source(kafka, source, topic)


def homes(kafka, topic):
    """Where the records of each key are, behind the newest load."""
    records = kafka.records(topic)
    newest = max((position(r)[0] for r in records if json.loads(r.value)["op"] == "t"), default=0)
    found = collections.defaultdict(set)
    for r in records:
        if r.key and position(r)[0] >= newest:
            found[r.key].add(r.partition)
    return found


@pytest.mark.parametrize("when", ["running", "stopped", "killed"])
def test_more_partitions(pg, kafka, daemon, when):
    """A key stays where it is, so that its changes keep their order. Who wants the others used has the table loaded again."""
    daemon.start()
    source, topic = begin(pg, kafka, daemon, partitions=2)
    before = homes(kafka, topic)
    assert collections.Counter(len(h) for h in before.values()) == {1: 500} and set.union(*before.values()) == {0, 1}
    if when == "stopped":
        daemon.api("POST", "/jobs/k/stop")
        daemon.wait_state("k", "stopped")
    elif when == "killed":
        daemon.kill()
    kafka.admin.create_partitions([NewPartitions(topic, 5)])[topic].result()
    if when != "killed":
        daemon.kill()  # what is there is known a minute later, or by a new one
    daemon.start()
    if when == "stopped":
        daemon.api("POST", "/jobs/k/start")
    daemon.wait_state("k", "running")
    source.psql("UPDATE t SET v = 'afterwards'")
    caught_up(daemon, "k", source)
    assert homes(kafka, topic) == before
    is_source(kafka, source, topic)
    told = [e["text"] for e in daemon.api("GET", "/jobs/k/events?limit=200")["items"] if "has got more partitions" in e["text"]]
    assert len(told) == 1 and f"topic {topic} has got more partitions: the keys of public.t stay in the first 2" in told[0], told
    daemon.api("POST", "/jobs/k/tables/public.t/reload")
    wait_for("loaded again", lambda: any(json.loads(r.value)["op"] == "t" for r in kafka.records(topic)))
    daemon.wait_state("k", "running")
    source.psql("UPDATE t SET v = 'in the end'")
    caught_up(daemon, "k", source)
    after = homes(kafka, topic)
    assert collections.Counter(len(h) for h in after.values()) == {1: 500} and set.union(*after.values()) == set(range(5))


@pytest.mark.parametrize("when", ["running", "stopped"])
@pytest.mark.parametrize("layout", ["ordered", "table"])
def test_a_broker_that_lost_its_newest(pg, start_kafka, dmsrd, layout, when):
    """As after a power failure: what it had acknowledged had not come to its disk."""
    kafka = start_kafka()
    source, topic = begin(pg, kafka, dmsrd, layout=layout)
    topic = topic if layout == "table" else f"{kafka.prefix}.__stream"
    log, = pathlib.Path(kafka.dir).glob(f"data/{topic}-0/*.log")
    before = log.stat().st_size
    for n in range(5):
        source.psql(f"UPDATE t SET v = 'n{n}' WHERE id <= 50")
    source.psql("DELETE FROM t WHERE id = 500")
    caught_up(dmsrd, "k", source)
    wait_for("written", lambda: log.stat().st_size > before)
    if when == "stopped":
        dmsrd.api("POST", "/jobs/k/stop")
        dmsrd.wait_state("k", "stopped")
    kafka.kill()
    os.truncate(log, before)
    for file in log.parent.iterdir():
        if file.suffix in (".index", ".timeindex", ".snapshot", ".txnindex"):
            file.unlink()
    kafka.start()
    if when == "stopped":
        dmsrd.api("POST", "/jobs/k/start")
    source.psql("UPDATE t SET v = 'afterwards' WHERE id > 490")
    failed(dmsrd, "kafka.stream-lost" if layout == "ordered" else "kafka.topic-lost")
    if layout == "ordered":
        return
    dmsrd.api("POST", "/jobs/k/tables/public.t/reload")
    dmsrd.api("POST", "/jobs/k/start")
    dmsrd.wait_state("k", "running")
    caught_up(dmsrd, "k", source)
    is_source(kafka, source, topic)


def test_they_go_on_when_a_target_comes(pg, kafka, dmsrd):
    """With layout auto: their readers are not asked whether they still want them. When the target goes, the stream goes on too."""
    source, topic = begin(pg, kafka, dmsrd)
    target = pg.database("k_copy")
    for targets, n in (([target.connection(name="copy")], 1), ([], 2)):
        dmsrd.api("POST", "/jobs/k/stop")
        dmsrd.wait_state("k", "stopped")
        dmsrd.api("PATCH", "/jobs/k", {"targets": targets}, headers={"If-Match": "*", "Content-Type": "application/merge-patch+json"})
        dmsrd.api("POST", "/jobs/k/start")
        dmsrd.wait_state("k", "running")
        source.psql(f"UPDATE t SET v = 'later {n}' WHERE id < 20; DELETE FROM t WHERE id = {400 + n}")
        if targets:
            dmsrd.wait_equal(source, target)
        caught_up(dmsrd, "k", source)
        is_source(kafka, source, topic)
        assert sum(b"later" in (m.value() or b"") for m in read(kafka, f"{kafka.prefix}.__stream")) >= 19 * n


@pytest.mark.parametrize("layout", ["table", "both"])
def test_another_cluster(pg, kafka, kafka3, dmsrd, layout):
    """Its topics of these names are longer: of where they end nobody could tell that the job's records are not in them."""
    kafka3.prefix = kafka.prefix
    source, _ = begin(pg, kafka, dmsrd, layout=layout)
    dmsrd.api("POST", "/jobs/k/stop")
    dmsrd.wait_state("k", "stopped")
    merge = {"If-Match": "*", "Content-Type": "application/merge-patch+json"}
    dmsrd.api("PATCH", "/jobs/k", {"streamer": {"bootstrap_servers": kafka3.bootstrap}}, headers=merge)
    dmsrd.api("POST", "/jobs/k/start")
    assert "set bootstrap_servers to that one again" in failed(dmsrd, "kafka.cluster-changed")["suggestion"]
    source.psql("UPDATE t SET v = 'meanwhile' WHERE id = 1")
    dmsrd.api("PATCH", "/jobs/k", {"streamer": {"bootstrap_servers": kafka.bootstrap}}, headers=merge)
    dmsrd.api("POST", "/jobs/k/start")
    dmsrd.wait_state("k", "running")
    caught_up(dmsrd, "k", source)
    is_source(kafka, source, f"{kafka.prefix}.public.t")
