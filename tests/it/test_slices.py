"""The loop serves all jobs and the API: no callback may keep it for long. Counted in the processor's time, which a busy machine does not change."""
import pathlib
import re
import subprocess

import pytest

from test_kafka import streamer

PGBENCH = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/pgbench"))[-1]
LIMIT = 0.005


def slices(dmsrd):
    """How many there were, and how many of them took longer than the limit."""
    text = dmsrd.api("GET", "/metrics")
    below = {m[1]: int(float(m[2])) for m in re.finditer(r'^dmsr_event_loop_cpu_seconds_bucket\{le="([^"]+)"\} (\S+)', text, re.M)}
    return below["+Inf"], below["+Inf"] - below[str(LIMIT)], re.search(r"^dmsr_event_loop_cpu_max_seconds\{.*", text, re.M)[0]


@pytest.mark.parametrize("way", ["strict", "parallel", "kafka"])
def test_one_of_a_thousand_is_long(pg, kafka, dmsrd, way):
    source, target = pg.database("b"), pg.database("b_copy")
    at = ["-h", "127.0.0.1", "-p", str(pg.port), "-U", "postgres", source.name]
    subprocess.run([PGBENCH, "-i", "-q", "-s", "5", *at], check=True, capture_output=True)
    source.psql("ALTER TABLE pgbench_history REPLICA IDENTITY FULL")
    more = {"streamer": streamer(kafka, layout="both")} if way == "kafka" else {}
    dmsrd.job("b", source.connection(), [target.connection(name="copy", apply="strict" if way == "kafka" else way)], **more)
    dmsrd.wait_state("b", "running", 200)
    n, is_long, worst = slices(dmsrd)
    assert n > 200 and is_long <= max(1, n / 1000), (n, is_long, worst)  # of the load
    subprocess.run([PGBENCH, "-n", "-c", "4", "-t", "1500", *at], check=True, capture_output=True)
    dmsrd.wait_equal(source, target, timeout=100)
    of_load, long_before = n, is_long
    n, is_long, worst = slices(dmsrd)
    assert n - of_load > 1000 and is_long - long_before <= (n - of_load) / 1000, (n, is_long, worst)
