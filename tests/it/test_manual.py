"""What README, the manual and HACKING say to type, typed: only names, passwords and addresses are those of the test."""
import itertools
import json
import os
import re
import subprocess

import pytest

from conftest import BUILD, TOP, Dmsrd, wait_for

numbers = itertools.count(1)


def indented(page):
    """Blocks of a Markdown page that are indented, each a text."""
    text = (TOP / page).read_text()
    return [re.sub(r"^ {4}", "", block, flags=re.M) for block in re.findall(r"(?:^ {4}.*\n|^\n(?= {4}))+", text, re.M)]


def literal(page):
    """Blocks of a manual page that are shown as they are."""
    text = (TOP / "man" / page).read_text()
    return [block.replace("\\-", "-").replace("\\e", "\\") for block in re.findall(r"^\.Bd -literal.*?\n(.*?)^\.Ed", text, re.M | re.S)]


def only(blocks, *words):
    found = [block for block in blocks if all(word in block for word in words)]
    assert len(found) == 1, (words, found)
    return found[0]


def commands(block):
    """A block's commands; a body may go over several lines."""
    return re.findall(r"^\S.*(?:\n .*)*", block, re.M)


def typed(command, daemon, directory):
    """Runs it in a shell; what it prints. An answer that is an error is one of the command's, too."""
    command = command.replace("localhost:8080", f"127.0.0.1:{daemon.port}").replace("/run/dmsr/api.sock", str(daemon.dir / "api.sock"))
    done = subprocess.run(["bash", "-eo", "pipefail", "-c", f'curl() {{ command curl -sS --fail-with-body "$@"; }}\n{command}'], cwd=directory,
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


@pytest.fixture
def shop(any_pg):
    """Two databases with README's names in place of their own, and a role for each that has nothing yet."""
    source, target = any_pg.database("shop"), any_pg.database("dw")
    reads, writes = (f"{what}_{next(numbers)}" for what in ("reads", "writes"))
    source.psql("REVOKE CREATE ON SCHEMA public FROM public; CREATE TABLE customers (id serial PRIMARY KEY, name text);"
                "CREATE TABLE orders (id serial PRIMARY KEY, customer int REFERENCES customers, total numeric);"
                "INSERT INTO customers (name) SELECT 'c' FROM generate_series(1, 100); INSERT INTO orders (customer, total) SELECT id, id FROM customers")
    target.psql("REVOKE CREATE ON SCHEMA public FROM public")
    yield source, reads, target, writes
    for db, who in ((source, reads), (target, writes)):
        if db.one("SELECT count(*) FROM pg_roles WHERE rolname = %s", who):
            db.sql(f"DROP OWNED BY {who} CASCADE; DROP ROLE {who}")


def as_named(text, shop):
    """A job's text with this test's servers."""
    source, reads, target, writes = shop
    port = source.server.port
    for host, database, db, who in (("db1", "shop", source, reads), ("db2", "dw", target, writes)):
        text, n = re.subn(rf'"host": "{host}",(\s+)"database": "{database}",(\s+)"user": "dmsr"',
                          rf'"host": "127.0.0.1", "port": {port},\1"database": "{db.name}",\2"user": "{who}"', text)
        assert n == 1, text
    return text.replace('"password": "..."', '"password": "a-password"')


def given(block, who, database):
    return re.sub(r"\bTO dmsr\b", f"TO {who}", block.replace("ROLE dmsr ", f"ROLE {who} ")).replace("'...'", "'a-password'").replace("DATABASE dw", f'DATABASE "{database}"')


def granted(shop):
    """README's statements, of both sides."""
    source, reads, target, writes = shop
    blocks = indented("README.md")
    source.psql(given(only(blocks, "LOGIN REPLICATION"), reads, source.name))
    publication = only(blocks, "CREATE PUBLICATION")
    old, new = re.findall(r"CREATE PUBLICATION[^;]*;", publication)
    assert "from 13 on" in publication and "from 18 on" in publication
    source.psql(re.sub(r"--.*", "", new if source.server.version >= 18 else old))
    target.psql(given(only(blocks, "GRANT CREATE ON DATABASE"), writes, target.name))


def test_a_first_job_by_hand(shop, dmsrd, tmp_path):
    source, target = shop[0], shop[2]
    granted(shop)
    create = only(indented("README.md"), "curl -X POST localhost:8080/jobs -H")
    create, *rest = [c for c in commands(create) if c.startswith("curl")]
    assert len(rest) == 6
    assert json.loads(typed(as_named(create, shop), dmsrd, tmp_path))["name"] == "shop"
    dmsrd.wait_state("shop", "running")
    dmsrd.wait_equal(source, target)
    source.psql("UPDATE orders SET total = total + 1; DELETE FROM orders WHERE id = 7; INSERT INTO customers (name) VALUES ('new')")
    dmsrd.wait_equal(source, target)
    status, tables, pause, look, change, delete = rest
    assert json.loads(typed(status, dmsrd, tmp_path))["load"]["percent"] == 100
    assert [t["name"] for t in json.loads(typed(tables, dmsrd, tmp_path))["items"]] == ["customers", "orders"]
    typed(pause, dmsrd, tmp_path)
    dmsrd.wait_state("shop", "paused")
    for verb, state in zip(re.findall(r"\w+", pause.partition("#")[2]), ("running", "stopped", "running", "running")):
        typed(pause.replace("/pause", f"/{verb}"), dmsrd, tmp_path)
        dmsrd.wait_state("shop", state)
    tag = re.search(r"^etag: (.*)", typed(look, dmsrd, tmp_path), re.M | re.I).group(1).strip()
    assert f"If-Match: {tag}'" in change
    assert json.loads(typed(change, dmsrd, tmp_path))["tables"]["exclude"] == ["public.orders"]
    assert dmsrd.call("PATCH", "/jobs/shop", {"tables": {"exclude": []}})[0] == 428
    typed(delete, dmsrd, tmp_path)
    wait_for("it is gone", lambda: dmsrd.call("GET", "/jobs/shop")[0] == 404)
    assert source.one("SELECT count(*) FROM pg_replication_slots WHERE database = current_database()") == 0


def test_commands_of_the_manual(shop, tmp_path):
    source, target = shop[0], shop[2]
    granted(shop)
    daemon = Dmsrd(tmp_path / "dmsrd", env={"SHOP": "a-password", "DW": "a-password"})
    config = json.loads(daemon.config.read_text())
    config["http"]["socket"] = str(daemon.dir / "api.sock")
    config["secrets"] = {"shop": {"env": "SHOP"}, "dw": {"env": "DW"}}
    daemon.config.write_text(json.dumps(config))
    daemon.start()
    try:
        (tmp_path / "job.json").write_text(as_named(only(literal("dmsr-job.5"), '"mode"'), shop))
        create, status, jobs = commands(only(literal("dmsr-api.7"), "job.json"))
        assert json.loads(typed(create, daemon, tmp_path))["name"] == "shop"
        daemon.wait_state("shop", "running")
        daemon.wait_equal(source, target)
        assert json.loads(typed(status, daemon, tmp_path))["state"] == "running"
        assert [j["name"] for j in json.loads(typed(jobs, daemon, tmp_path))["items"]] == ["shop"]
        debug = next(line for line in (TOP / "HACKING").read_text().splitlines() if "/loggers/" in line)
        assert json.loads(typed(debug[debug.index("curl"):], daemon, tmp_path))["level"] == "debug"
        held = next(line for line in (TOP / "HACKING").read_text().splitlines() if "/metrics | grep" in line)
        assert 'dmsr_event_loop_lag_max_seconds{room="' in typed(re.search(r"curl .*? \| grep \w+", held).group(), daemon, tmp_path)
        daemon.api("DELETE", "/jobs/shop")
        wait_for("it is gone", lambda: daemon.call("GET", "/jobs/shop")[0] == 404)
    finally:
        daemon.kill()


def test_jobs_through_kafka(shop, any_pg, kafka, tmp_path):
    """dmsr-job(5): one job writes, and another reads."""
    source, target, copy = shop[0], shop[2], any_pg.database("copy")
    granted(shop)
    daemon = Dmsrd(tmp_path / "dmsrd", env={"SHOP": "a-password", "DW": "a-password", "COPY": copy.connection()["password"]})
    config = json.loads(daemon.config.read_text())
    config["secrets"] = {name.lower(): {"env": name} for name in daemon.env}
    daemon.config.write_text(json.dumps(config))
    daemon.start()
    try:
        jobs = [block.replace("kafka1:9092,kafka2:9092", kafka.bootstrap).replace('"prefix": "shop"', f'"prefix": "{kafka.prefix}"')
                for block in literal("dmsr-job.5") if '"bootstrap_servers"' in block]
        writer, reader = only(jobs, '"streamer"'), only(jobs, '"source": { "connector": "kafka"')
        assert len(jobs) == 2 and all(kafka.bootstrap in job and kafka.prefix in job for job in jobs), jobs
        daemon.api("POST", "/jobs", as_named(writer, shop).encode())
        there = copy.connection()
        found = json.loads(reader)
        assert found["targets"][0]["host"] == "db3" and found["targets"][0]["database"] == "copy"
        found["targets"][0].update({key: there[key] for key in ("host", "port", "database", "user")})
        daemon.api("POST", "/jobs", found)
        for to in target, copy:
            daemon.wait_equal(source, to)
        source.psql("UPDATE orders SET total = total + 1; DELETE FROM orders WHERE id = 7; INSERT INTO customers (name) VALUES ('new')")
        for to in target, copy:
            daemon.wait_equal(source, to)
    finally:
        daemon.kill()


def test_a_daemon_without_a_file(tmp_path):
    """README's and dmsrd(8)'s first lines: no configuration, nothing installed."""
    readme = only(indented("README.md"), "./dmsrd -o")
    manual = only(literal("dmsrd.8"), "curl localhost")
    for line in (re.search(r"^\./dmsrd (.*) &$", readme, re.M).group(1), re.search(r"^dmsrd (.*)$", manual, re.M).group(1)):
        daemon = Dmsrd(tmp_path / f"d{next(numbers)}")
        where = re.search(r"state_dir=(\S+)", line).group(1)
        daemon.command = lambda line=line, where=where, daemon=daemon: [
            str(BUILD / "dmsrd"), *line.replace(where, str(daemon.state)).split(), "-o", f"http.listen=127.0.0.1:{daemon.port}"]
        daemon.start()
        try:
            assert json.loads(typed(commands(manual)[1], daemon, tmp_path))["items"]
        finally:
            assert daemon.stop() == 0


def test_quickstart_removes_what_it_made_alone(tmp_path):
    def stop(directory):
        return subprocess.run([TOP / "quickstart", "stop"], env={**os.environ, "DMSR_QUICKSTART": str(directory)}, capture_output=True, text=True, timeout=60,
                              check=False)
    for name in "mine", "its", "empty":
        (tmp_path / name).mkdir()
    (tmp_path / "mine" / "thesis").write_text("years of work")
    (tmp_path / "its" / ".dmsr-quickstart").touch()
    done = stop(tmp_path / "mine")
    assert done.returncode == 1 and "DMSR_QUICKSTART" in done.stderr and str(tmp_path / "mine") in done.stderr, done
    assert (tmp_path / "mine" / "thesis").read_text() == "years of work"
    for name in "its", "empty", "none":
        assert stop(tmp_path / name).returncode == 0
        assert not (tmp_path / name).exists()
