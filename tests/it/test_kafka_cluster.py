"""Several brokers: replicas, and leaders that are killed, so that others take their place."""
import pytest

from conftest import wait_for
from test_kafka import KEYS, caught_up, check_topics, streamer
from test_kill import TABLES, Load


@pytest.fixture
def brokers(start_kafka):
    """Three; the first is the only controller, and stays."""
    settings = [f"{name}=3" for name in ("offsets.topic.replication.factor", "transaction.state.log.replication.factor")]
    settings += ["min.insync.replicas=2", "broker.session.timeout.ms=3000", "broker.heartbeat.interval.ms=500"]
    first = start_kafka(settings=settings)
    return [first] + [start_kafka(settings=settings, joins=first) for _ in range(2)]


@pytest.mark.parametrize("options", [{"layout": "both"}, {"layout": "both", "exactly_once": True}, {"codec": "native"}], ids=["both", "exact", "native"])
def test_leaders_that_are_killed(pg, brokers, dmsrd, options):
    """A topic has its three replicas, and each acknowledged record, and the order of each key, live through the end of its leader."""
    first = brokers[0]
    source, target = pg.database("k"), pg.database("k_copy")
    source.psql(TABLES)
    several = {**streamer(first, replication=3, **options), "bootstrap_servers": ",".join(b.bootstrap for b in brokers)}
    dmsrd.job("k", source.connection(), [target.connection(name="copy")], streamer={**several, **({} if "codec" in options else {"partitions": 3})})
    dmsrd.wait_state("k", "running")
    load = Load(pg, source)
    try:
        for victim in brokers[1:]:
            wait_for("all is in sync", lambda: all(n == 3 for _, n in first.partitions(first.prefix).values()), 60)
            led = [p for p, (port, _) in first.partitions(first.prefix).items() if port == victim.port]
            assert led or "codec" in options, "of many partitions each broker leads some"
            victim.kill()
            wait_for("others lead", lambda: all(port not in (None, victim.port) for port, _ in first.partitions(first.prefix).values()), 60)
            seen = load.transactions
            wait_for("it goes on", lambda: load.transactions > seen + 100, 60)
            caught_up(dmsrd, "k", source)  # two of three are enough
            victim.start()
    finally:
        load.stop()
    dmsrd.wait_equal(source, target)
    caught_up(dmsrd, "k", source)
    assert dmsrd.api("GET", "/jobs/k/status")["retries"]["total"] == 0
    if "codec" not in options:
        check_topics(first, source, KEYS, ["keyless"])
