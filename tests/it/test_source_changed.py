"""What happens at the source and its stream does not tell: a publication that somebody alters, tables that are rewritten, partitions and tables that come and go.
Nothing of that is passed over in silence: what was missed is loaded again, or the job ends and says why."""
import pytest

from test_source import KEYS, SLOT, TABLES, db, dump, free, server  # noqa: F401 (fixtures)

ROOT = "publish_via_partition_root = true"


def again(d):
    """The run ends by itself, to be tried again; the next one says what it does about it."""
    id_, retry, text = d.failure()
    assert (id_, retry) == ("source.changed", True), text
    free(d.db)
    return text


def loads(d):
    return [line[2] for line in d.lines() if line[0] == "L"]


# ---- the publication ----

@pytest.mark.parametrize("back", [False, True], ids=["", "and back"])
@pytest.mark.parametrize("what", ["SET (publish = 'insert')", "SET (publish_via_partition_root = false)"])
def test_publication_altered(db, dump, what, back):
    """All of its tables may have missed something. Also when it is as it was before, and when nobody ran meanwhile."""
    db.sql(TABLES)
    d = dump("table=public.*", key=KEYS).start().streaming().caught_up()
    db.sql(f"ALTER PUBLICATION {SLOT} {what}; UPDATE a SET v = 'missed'")
    if back:
        db.sql(f"ALTER PUBLICATION {SLOT} SET (publish = 'insert, update, delete, truncate', {ROOT})")
    again(d)
    for _ in range(2):
        id_, retry, text = d.start().failure()
        assert (id_, retry) == ("publication.incomplete" if "insert" in what and not back else "publication.lost", False), text
        assert "make it anew" in d.text()
        free(db)


def test_publication_of_another_owner(db, dump):
    db.sql(TABLES)
    d = dump("table=public.*", key=KEYS).start().streaming().caught_up()
    role = f"owner_{db.name}"
    db.sql(f"CREATE ROLE {role} SUPERUSER; ALTER PUBLICATION {SLOT} OWNER TO {role}; UPDATE a SET v = 'sent'")
    d.caught_up().stop()
    free(db)
    d.start().streaming().caught_up().stop()
    d.same()
    assert len(loads(d)) == len(set(loads(d)))


def test_publication_dropped_while_nothing_changes(db, dump):
    db.sql(TABLES)
    d = dump("table=public.*", key=KEYS).start().streaming().caught_up()
    db.sql(f"DROP PUBLICATION {SLOT}")
    again(d)
    assert d.start().failure()[:2] == ("publication.lost", False)


@pytest.mark.parametrize("down", [False, True], ids=["while it runs", "while it is down"])
@pytest.mark.parametrize("own", [True, False], ids=["own", "given"])
def test_a_table_out_of_the_publication_and_back(db, dump, own, down):
    """Put back by hand it looks as ever; what was missed is loaded, of that table alone."""
    db.sql(TABLES)
    name = SLOT if own else "given"
    if not own:
        db.sql(f'CREATE PUBLICATION given FOR TABLE a, "Odd ""name", k, u, p WITH ({ROOT})')
    d = dump("table=public.*", *([] if own else ["publication=given"]), key=KEYS).start().streaming().caught_up()
    if down:
        d.stop()
        free(db)
    db.sql(f"ALTER PUBLICATION {name} DROP TABLE a; UPDATE a SET v = 'missed'; UPDATE k SET b = 'seen'; ALTER PUBLICATION {name} ADD TABLE a")
    if not down:
        assert "public.a" in again(d)
    d.start().streaming().caught_up()
    assert "public.a was out of the publication" in d.text()
    d.stop()
    d.same()
    assert loads(d).count("a") == 2 and loads(d).count("k") == 1
    free(db)
    d.start().streaming().caught_up().stop()
    assert loads(d).count("a") == 2, "but once"


@pytest.mark.parametrize("part", ["t WHERE (id > 1)", "t (id)"])
def test_row_filters_and_column_lists(db, server, dump, part):
    if server.version < 15:
        pytest.skip("15 has them")
    db.sql("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    d = dump("table=public.*").start().streaming().caught_up()
    db.sql(f"ALTER PUBLICATION {SLOT} SET TABLE {part}; UPDATE t SET v = 'missed'")
    again(d)
    assert d.start().failure()[:2] == ("publication.filtered", False)
    db.sql(f"ALTER PUBLICATION {SLOT} SET TABLE t")
    free(db)
    d.start().streaming().caught_up().stop()
    d.same()
    assert loads(d) == ["t", "t"]


def test_a_table_out_of_the_publication_when_nothing_is_loaded(db, dump):
    db.sql("CREATE TABLE t (id int PRIMARY KEY)")
    d = dump("table=public.*", "mode=cdc").start().streaming().caught_up()
    db.sql(f"CREATE TABLE o (id int PRIMARY KEY); ALTER PUBLICATION {SLOT} SET TABLE o; ALTER PUBLICATION {SLOT} SET TABLE t")
    again(d)
    assert d.start().failure()[:2] == ("publication.lost", False)
