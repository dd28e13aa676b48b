"""Every type with its edges: in the load, in the stream, and across the seam between them, compared by PostgreSQL itself."""
import pytest

import zoo


def shapes(db):
    return db.sql("""SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND n.nspname = 'public' AND a.attnum > 0 AND NOT a.attisdropped ORDER BY 1, a.attnum""")


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
@pytest.mark.parametrize("identity", ["default", "full"])
def test_every_type(any_pg, dmsrd, identity, binary):
    load_and_follow(any_pg, dmsrd, identity, binary)


@pytest.mark.parametrize("how", [{"layout": "both"}, {"codec": "native"}], ids=["json", "native"])
def test_every_type_through_kafka(pg18, kafka, dmsrd, how):
    load_and_follow(pg18, dmsrd, streamer={"type": "kafka", "bootstrap_servers": kafka.bootstrap, "prefix": kafka.prefix, **how})


def load_and_follow(pg, dmsrd, identity="default", binary=True, **job):
    source, target = pg.database("zoo"), pg.database("zoo_copy")
    version = pg.version
    source.psql(zoo.create(version) + zoo.insert(version, 1, "load"))
    if identity == "full":
        source.psql("".join(f"ALTER TABLE {t} REPLICA IDENTITY FULL;\n" for t in source.tables()))
    dmsrd.job("zoo", source.connection(binary=binary), [target.connection(name="copy")], **job)
    # across the seam: these may be in the snapshot, in the stream, or while the load runs
    source.psql(zoo.insert(version, 1001, "seam"))
    dmsrd.wait_state("zoo", "running", 120)
    source.psql(zoo.rotate(version, 1))
    source.psql(zoo.insert(version, 2001, "stream"))
    source.psql(zoo.touch(version, 1))
    source.psql("BEGIN;" + zoo.rotate(version, 2001) + zoo.touch(version, 2001) + zoo.delete_some(version, 1001) + "COMMIT;")
    dmsrd.wait_equal(source, target)
    assert shapes(source) == shapes(target)


SETTINGS = {"array_nulls": "off", "DateStyle": "'SQL, DMY'", "IntervalStyle": "sql_standard", "extra_float_digits": "-15", "bytea_output": "escape",
            "TimeZone": "'Asia/Kathmandu'", "lc_monetary": "'en_US.utf8'", "xmloption": "document", "standard_conforming_strings": "off",
            "transform_null_equals": "on", "quote_all_identifiers": "on", "gin_fuzzy_search_limit": "1", "search_path": "elsewhere, pg_catalog",
            "client_encoding": "'SQL_ASCII'", "backslash_quote": "off"}


@pytest.mark.parametrize("side", ["source", "target"])
def test_settings_of_a_database(any_pg, dmsrd, side):
    """What somebody set for all sessions changes neither how values are written nor how they are read."""
    source, target = any_pg.database("zoo"), any_pg.database("zoo_copy")
    version, odd = any_pg.version, source if side == "source" else target
    locales = {name for name, in odd.sql("SELECT collcollate FROM pg_collation WHERE collcollate IS NOT NULL")}
    nulls = "INSERT INTO nulls VALUES (%d, '{NULL,a,\"NULL\"}', '{{1,NULL},{NULL,2}}', ARRAY[ROW(1, NULL)::pair, NULL], '0044-03-15 BC', '-1 mon 2 days -3:04');"
    create = "CREATE TABLE nulls (id int PRIMARY KEY, v text[], n int[], p pair[], d date, i interval);"
    source.psql(zoo.create(version) + create + zoo.insert(version, 1, "load") + nulls % 1)
    source.psql("".join(f"ALTER TABLE {t} REPLICA IDENTITY FULL;\n" for t in source.tables()))
    odd.psql("".join(f"ALTER DATABASE {odd.name} SET {name} = {value};" for name, value in SETTINGS.items() if name != "lc_monetary" or value.strip("'") in locales))
    dmsrd.job("zoo", source.connection(), [target.connection(name="copy")])
    dmsrd.wait_state("zoo", "running", 120)
    if side == "source":  # what is written there now is to be read as it was meant
        odd.psql("".join(f"ALTER DATABASE {odd.name} RESET {name};" for name in SETTINGS))
    source.psql(zoo.insert(version, 2001, "stream") + zoo.touch(version, 1) + nulls % 2 + "UPDATE nulls SET v = v || NULL::text;")
    odd.psql("".join(f"ALTER DATABASE {odd.name} RESET {name};" for name in SETTINGS))
    dmsrd.wait_equal(source, target)


def test_keys_of_every_type(any_pg, dmsrd):
    """A primary key of each type that can be one: rows are found again by it."""
    source, target = any_pg.database("keys"), any_pg.database("keys_copy")
    skip = {"json", "xml", "point", "line", "lseg", "box", "path", "polygon", "circle", "box[]", "xid", "cid", "txid_snapshot", "jsonpath", "aclitem", "aclitem[]",
            "int2vector", "refcursor", "pg_snapshot"}
    made = []
    source.psql(zoo.TYPES)
    for i, (t, values) in enumerate(zoo.values(any_pg.version).items()):
        if t in skip:
            continue
        small = [v for v in values if "repeat" not in v and len(v) < 1000]
        source.psql(f"CREATE TABLE k{i} (v {t} PRIMARY KEY, n integer);" + "".join(f"INSERT INTO k{i} VALUES (({v})::{t}, 0) ON CONFLICT DO NOTHING;" for v in small))
        made.append((i, t, small))
    dmsrd.job("keys", source.connection(), [target.connection(name="copy")])
    dmsrd.wait_state("keys", "running", 120)
    for i, t, small in made:
        source.psql(f"UPDATE k{i} SET n = n + 1; DELETE FROM k{i} WHERE v = ({small[0]})::{t}; INSERT INTO k{i} VALUES (({small[0]})::{t}, 7);")
    dmsrd.wait_equal(source, target)
