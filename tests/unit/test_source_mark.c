/* source_mark: what two marks of a table tell. Those here are "published/files/columns"; test_source_changed.py has the server's own. */
#include "test.h"

#include "connectors/postgres/source_mark.h"

static void expect(const char *was, const char *is, const char *what)
{
	struct mark_diff d;
	char text[140];
	mark_compare(was, is, &d);
	snprintf(text, sizeof text, "%s%s%s%s%s%s%s%s%s%s%s%s%s%s", d.is_other ? "other" : "", d.is_unpublished ? " unpublished" : "",
		d.is_rewritten ? " rewritten" : "", d.is_made_again ? " again" : "", d.is_ungenerated ? " bare" : "", d.is_recomputed ? " recomputed" : "",
		d.attached ? " attached" : "", d.gone ? " gone" : "", d.refiled ? " refiled" : "", d.is_unlogged_now ? " unlogged" : "",
		d.is_relogged ? " relogged" : "", d.is_relabelled ? " relabelled" : "", d.is_reshaped ? " reshaped" : "",
		d.emptied ? " emptied" : "");
	if (strcmp(text, what) != 0)
		fail_msg("%s -> %s: \"%s\" instead of \"%s\"", was, is, text, what);
}

static void publications(void **state)
{
	const char *was = "n9:5,r7:3/1:1:1/1:aa:23:-1:0:2:0";
	(void)state;
	expect(was, was, "");
	expect(was, "r7:3/1:1:1/1:aa:23:-1:0:2:0", "other");
	expect(was, "r7:33/1:1:1/1:aa:23:-1:0:2:0", "other unpublished");
	expect(was, "-/1:1:1/1:aa:23:-1:0:2:0", "other unpublished");
	expect(was, "a4/1:1:1/1:aa:23:-1:0:2:0", "other unpublished");
	expect("-/1:1:1/1:aa:23:-1:0:2:0", was, "other unpublished");
	expect("-/1:1:1/1:aa:23:-1:0:2:0", "-/1:1:1/1:aa:23:-1:0:2:0", " unpublished");
}

static void rewrites(void **state)
{
	const char *was = "a4/1:10:1:1/1:aa:23:-1:0:2:0,2:bb:23:-1:8:5:1,3:cc:1043:24:0:2:0";
	(void)state;
	/* another file alone: VACUUM FULL, TRUNCATE, CLUSTER; the values that were kept apart are in the rows now */
	expect(was, "a4/1:11:1:1/1:aa:23:-1:0:2:0,2:bb:23:-1:8:5:1,3:cc:1043:24:0:2:0", "other");
	expect(was, "a4/1:11:1:1/1:aa:23:-1:0:2:0,2:bb:23:-1:8:9:0,3:cc:1043:24:0:2:0", "other");
	/* a column alone: its name, its default, a type that needs no rewrite */
	expect(was, "a4/1:10:1:1/1:ab:23:-1:0:9:0,2:bb:23:-1:9:9:1,3:cc:1043:28:0:9:0", "other");
	/* a column that has a default or is a constant's, dropped */
	expect(was, "a4/1:11:1:1/1:aa:23:-1:0:2:0,3:cc:1043:24:0:2:0", "other");
	/* ALTER TYPE */
	expect(was, "a4/1:11:1:1/1:aa:20:-1:0:9:0,2:bb:23:-1:8:9:0,3:cc:1043:24:0:2:0", "other rewritten");
	expect(was, "a4/1:11:1:1/1:aa:23:-1:0:9:0,2:bb:23:-1:8:9:0,3:cc:1043:24:0:2:0", "other rewritten");
	expect(was, "a4/1:11:1:1/1:aa:23:-1:0:2:0,2:bb:23:-1:12:9:0,3:cc:1043:24:0:2:0", "other rewritten");
	/* a new column whose default differs from row to row; one whose default is kept apart */
	expect(was, "a4/1:11:1:1/1:aa:23:-1:0:2:0,2:bb:23:-1:8:9:0,3:cc:1043:24:0:2:0,4:dd:2950:-1:14:9:0", "other rewritten");
	expect(was, "a4/1:10:1:1/1:aa:23:-1:0:2:0,2:bb:23:-1:8:5:1,3:cc:1043:24:0:2:0,4:dd:23:-1:14:9:1", "other");
}

static void columns_made_again(void **state)
{
	const char *was = "a4/1:10:1:1/1:aa:23:-1:0:2:0,2:bb:23:-1:0:2:0";
	(void)state;
	expect(was, "a4/1:10:1:1/1:aa:23:-1:0:2:0,3:bb:23:-1:0:9:0", "other again");
	/* another type: the stream, which has names, could tell only the one from the other if it were read in time */
	expect(was, "a4/1:10:1:1/1:aa:23:-1:0:2:0,3:bb:25:-1:0:9:0", "other again");
	/* the names of before, and more; the first dropped, the second under its name, and a new second one */
	expect(was, "a4/1:10:1:1/1:aa:23:-1:0:2:0,3:bb:25:-1:0:9:0,4:cc:25:-1:0:9:0", "other again");
	expect(was, "a4/1:10:1:1/2:aa:23:-1:0:9:0,3:bb:23:-1:0:9:0", "other again");
	/* fewer, and in another order: each message shows whether it is of before */
	expect(was, "a4/1:10:1:1/2:aa:23:-1:0:9:0", "other");
	expect(was, "a4/1:10:1:1/1:bb:23:-1:0:9:0,2:aa:23:-1:0:9:0", "other");
	/* another name, which the stream tells; and the old column has a new name, which it tells too */
	expect(was, "a4/1:10:1:1/1:aa:23:-1:0:2:0,3:cc:23:-1:0:9:0", "other");
	expect(was, "a4/1:10:1:1/1:aa:23:-1:0:2:0,2:zz:23:-1:0:9:0,3:bb:23:-1:0:9:0", "other");
}

static void generated_columns(void **state)
{
	const char *was = "a4/1:10:1:1/1:aa:23:-1:0:2:0:0,2:cc:23:-1:8:2:0:1";
	(void)state;
	expect(was, was, "");
	/* a plain one now; with another expression; of another type; a new one, which the target computes; gone */
	expect(was, "a4/1:10:1:1/1:aa:23:-1:0:2:0:0,2:cc:23:-1:0:9:0:0", "other bare");
	expect(was, "a4/1:11:1:1/1:aa:23:-1:0:2:0:0,2:cc:23:-1:9:9:0:1", "other recomputed");
	expect(was, "a4/1:11:1:1/1:aa:23:-1:0:2:0:0,2:cc:20:-1:9:9:0:1", "other");
	expect(was, "a4/1:11:1:1/1:aa:23:-1:0:2:0:0,2:cc:23:-1:8:2:0:1,3:dd:23:-1:9:9:0:1", "other");
	expect(was, "a4/1:10:1:1/1:aa:23:-1:0:2:0:0", "other");
	/* a note of before has none of them */
	expect("a4/1:10:1:1/1:0cc175b9:23:-1:0:2:0", was, "other");
}

static void shapes(void **state)
{
	struct relation_builder *b = relation_build("postgres", "public", "t", 5);
	struct relation *of = relation_seal(b, KEY_NONE), *rel = mark_shape("a4/1:10:1/1:6964:23:-1:0:2:0:0,3:c3a4:25:-1:8:2:0:1 ", of);
	(void)state;
	assert_non_null(rel);
	assert_int_equal(rel->id, 5);
	assert_int_equal(rel->ncolumns, 2);
	assert_string_equal(rel->columns[0].name, "id");
	assert_int_equal(rel->columns[0].source_id, 1);
	assert_string_equal(rel->columns[1].name, "\xc3\xa4");
	assert_int_equal(rel->columns[1].source_id, 3);
	assert_int_equal(rel->columns[1].flags & COLUMN_GENERATED, COLUMN_GENERATED);
	relation_unref(rel);
	assert_null(mark_shape("a4/1:10:1/1:0cc175b9:23:-1:0:2:0", of));
	assert_null(mark_shape("a4/1:10:1/", of));
	assert_null(mark_shape("", of));
	relation_unref(of);
}

static void partitions(void **state)
{
	const char *was = "a4/5:10:1,7:11:0/1:aa:23:-1:0:2:0";
	(void)state;
	expect(was, "a4/5:10:1,6:12:1,7:11:0/1:aa:23:-1:0:2:0", "other");
	expect(was, "a4/5:10:1,7:11:0,8:12:0/1:aa:23:-1:0:2:0", "other attached");
	expect(was, "a4/4:9:0,7:11:0/1:aa:23:-1:0:2:0", "other attached gone");
	expect(was, "a4//1:aa:23:-1:0:2:0", "other gone");
	/* one of them in another file, and the root's column altered */
	expect(was, "a4/5:10:1,7:13:0/1:aa:20:-1:0:9:0", "other rewritten");
	expect(was, "a4/5:13:1,7:13:0/1:aa:23:-1:0:2:0", "other refiled");
}

static void unlogged(void **state)
{
	const char *was = "a4/5:10:1:0:90:700,7:11:0:0:0:701/1:aa:23:-1:0:2:0";
	(void)state;
	expect(was, was, "");
	/* now, a new one, no more */
	expect(was, "a4/5:12:1:2:91:700,7:11:0:0:0:701/1:aa:23:-1:0:2:0", "other unlogged");
	expect(was, "a4/5:10:1:0:90:700,7:11:0:0:0:701,8:12:1:2:0:702/1:aa:23:-1:0:2:0", "other unlogged");
	expect("a4/5:12:1:2:91:700,7:11:0:0:0:701/1:aa:23:-1:0:2:0", "a4/5:13:1:0:92:700,7:11:0:0:0:701/1:aa:23:-1:0:2:0", "other relogged");
	expect("a4/5:12:1:2:91:700/1:aa:23:-1:0:2:0", "a4/5:13:1:2:91:700/1:aa:23:-1:0:2:0", "other");
	assert_int_equal(mark_unlogged("a4/5:12:1:2:91:700,7:11:0:0:0:701,8:9:0:2:0:701/1:aa:23:-1:0:2:0"), 2);
	assert_int_equal(mark_unlogged(was), 0);
	assert_int_equal(mark_unlogged(""), 0);
	/* new files: with the long values anew; without (TRUNCATE), of one, of all; of a table that
	 * has no place for them; of one that is published by its own name */
	expect(was, "a4/5:12:1:0:91:700,7:11:0:0:0:701/1:aa:23:-1:0:2:0", "other relogged");
	expect(was, "a4/5:12:1:0:90:700,7:11:0:0:0:701/1:aa:23:-1:0:2:0", "other refiled");
	/* a foreign table is a partition without a file */
	expect("a4/5:10:1:0:90:700,7:0:0:0:0:701/1:aa:23:-1:0:2:0", "a4/5:12:1:0:90:700,7:0:0:0:0:701/1:aa:23:-1:0:2:0", "other emptied");
	/* the only one, with another that is new, with one that is gone; a rewrite makes new files, too */
	expect("a4/5:10:1:0:90:700/1:aa:23:-1:0:2:0", "a4/5:12:1:0:90:700,7:0:1:0:91:701/1:aa:23:-1:0:2:0", "other emptied");
	expect("a4/5:10:1:0:90:700,7:0:1:0:91:701/1:aa:23:-1:0:2:0", "a4/5:12:1:0:90:700/1:aa:23:-1:0:2:0", "other gone emptied");
	expect("a4/5:10:1:0:90:700/1:aa:23:-1:0:2:0", "a4/5:12:1:0:90:700/1:aa:20:-1:0:9:0", "other rewritten");
	/* the rewrite may have been for a generated column */
	expect("a4/5:10:1:0:90:0/1:aa:23:-1:0:2:0", "a4/5:12:1:0:91:0/1:aa:23:-1:0:2:0,2:bb:23:-1:55:3:0:1", "other refiled");
	expect("a4/5:10:1:2:90:0/1:aa:23:-1:0:2:0", "a4/5:12:1:0:91:0/1:aa:23:-1:0:2:0,2:bb:23:-1:55:3:0:1", "other relogged");
	expect("a4/5:10:1:0:90:700,7:11:0:0:91:701/1:aa:23:-1:0:2:0", "a4/5:12:1:0:90:700,7:13:0:0:91:701/1:aa:23:-1:0:2:0", "other emptied");
	expect("a4/5:10:1:0:90:0/1:aa:23:-1:0:2:0", "a4/5:12:1:0:90:0/1:aa:23:-1:0:2:0", "other");
	expect(was, "a4/5:10:1:0:90:700,7:13:0:0:0:701/1:aa:23:-1:0:2:0", "other refiled");
	expect("r7:3/5:10:1:1:90:0/1:aa:23:-1:0:2:0", "r7:3/5:12:1:1:91:0/1:aa:23:-1:0:2:0", "other");
	expect("r7:3/5:10:1:1:90:0/1:aa:23:-1:0:2:0", "a4,r7:3/5:12:1:0:91:0/1:aa:23:-1:0:2:0", "other relogged");
	/* detached and attached again, of both kinds; a note of before does not know since when it was there */
	expect(was, "a4/5:10:0:0:90:800,7:11:0:0:0:701/1:aa:23:-1:0:2:0", "other attached");
	expect(was, "a4/5:10:1:0:90:700,7:11:0:0:0:801/1:aa:23:-1:0:2:0", "other attached");
	expect("a4/5:10:1,7:11:0/1:aa:23:-1:0:2:0", was, "other");
}

static void types(void **state)
{
	const char *was = "a4/1:10:1:1/1:aa:23:-1:0:2:0:0/t20:ab,l7:01,l71:02";
	(void)state;
	expect(was, was, "");
	/* another label, one that is renamed, another attribute; a type that is not used any more */
	expect(was, "a4/1:10:1:1/1:aa:23:-1:0:2:0:0/t20:ab,l7:01,l71:02,l8:03", "other");
	expect(was, "a4/1:10:1:1/1:aa:23:-1:0:2:0:0/t20:ab,l7:04,l71:02", "other relabelled");
	expect(was, "a4/1:10:1:1/1:aa:23:-1:0:2:0:0/t20:ab,l7:01,l71:023", "other relabelled");
	expect(was, "a4/1:10:1:1/1:aa:23:-1:0:2:0:0/t20:ac,l7:01,l71:02", "other reshaped");
	expect(was, "a4/1:10:1:1/1:aa:23:-1:0:2:0:0/", "other");
	expect(was, "a4/1:10:1:1/1:aa:23:-1:0:2:0:0", "other");
	expect("a4/1:10:1:1/1:aa:23:-1:0:2:0:0", was, "other");
	expect("a4/1:10:1:1/1:aa:23:-1:0:2:0:0/t,l7", "a4/1:10:1:1/1:aa:23:-1:0:2:0:0/t,l", "other");
	/* one of before has other hashes */
	expect("a4/1:10:1:1/1:aa:23:-1:0:2:0:0/c20:cd,e7:05,e71:06", was, "other");
}

static void parts_that_are_kept(void **state)
{
	const char *was = "r7:3/1:10:1:1:90:0/1:aa:23:-1:8:2:0:0,2:bb:25:-1:0:2:0:1/l7:01", *tree = "a4/5:10:1:0:90:700,7:11:0:0:91:701/1:aa:23:-1:0:2:0:0";
	(void)state;
	assert_true(mark_keeps_parts(was, was));
	/* VACUUM FULL, TRUNCATE; settings, a default; a label more */
	assert_true(mark_keeps_parts(was, "r7:3/1:12:1:1:90:0/1:aa:23:-1:8:2:0:0,2:bb:25:-1:0:2:0:1/l7:01"));
	assert_true(mark_keeps_parts(was, "r7:3/1:10:1:1:90:0/1:aa:23:-1:9:3:0:0,2:bb:25:-1:0:3:0:1/l7:01"));
	assert_true(mark_keeps_parts(was, "r7:3/1:10:1:1:90:0/1:aa:23:-1:8:2:0:0,2:bb:25:-1:0:2:0:1/l7:01,l8:02"));
	/* published otherwise; rewritten; another type, name, column; generated no more; a label renamed */
	assert_false(mark_keeps_parts(was, "r7:4/1:10:1:1:90:0/1:aa:23:-1:8:2:0:0,2:bb:25:-1:0:2:0:1/l7:01"));
	assert_false(mark_keeps_parts(was, "a4,r7:3/1:10:1:1:90:0/1:aa:23:-1:8:2:0:0,2:bb:25:-1:0:2:0:1/l7:01"));
	assert_false(mark_keeps_parts(was, "r7:3/1:12:1:1:90:0/1:aa:23:-1:9:3:0:0,2:bb:25:-1:0:2:0:1/l7:01"));
	assert_false(mark_keeps_parts(was, "r7:3/1:10:1:1:90:0/1:aa:23:-1:8:2:0:0,2:bb:1043:-1:0:3:0:1/l7:01"));
	assert_false(mark_keeps_parts(was, "r7:3/1:10:1:1:90:0/1:aa:23:-1:8:2:0:0,2:bc:25:-1:0:3:0:1/l7:01"));
	assert_false(mark_keeps_parts(was, "r7:3/1:10:1:1:90:0/1:aa:23:-1:8:2:0:0,3:bb:25:-1:0:3:0:1/l7:01"));
	assert_false(mark_keeps_parts(was, "r7:3/1:10:1:1:90:0/1:aa:23:-1:8:2:0:0/l7:01"));
	assert_false(mark_keeps_parts(was, "r7:3/1:10:1:1:90:0/1:aa:23:-1:8:2:0:0,2:bb:25:-1:0:2:0:1,3:cc:25:-1:0:2:0:0/l7:01"));
	assert_false(mark_keeps_parts(was, "r7:3/1:10:1:1:90:0/1:aa:23:-1:8:2:0:0,2:bb:25:-1:0:3:0:0/l7:01"));
	assert_false(mark_keeps_parts(was, "r7:3/1:10:1:1:90:0/1:aa:23:-1:8:2:0:0,2:bb:25:-1:0:2:0:1/l7:02"));
	/* UNLOGGED and back */
	assert_false(mark_keeps_parts("a4/1:10:1:0:90:0/1:aa:23:-1:0:2:0:0", "a4/1:12:1:0:91:0/1:aa:23:-1:0:2:0:0"));
	assert_true(mark_keeps_parts("a4/1:10:1:0:90:0/1:aa:23:-1:0:2:0:0", "a4/1:12:1:0:90:0/1:aa:23:-1:0:2:0:0"));
	/* a partition that was empty when it came, that was not; that is gone, that may have been truncated alone */
	assert_true(mark_keeps_parts(tree, "a4/5:10:1:0:90:700,7:11:0:0:91:701,9:13:1:0:92:702/1:aa:23:-1:0:2:0:0"));
	assert_false(mark_keeps_parts(tree, "a4/5:10:1:0:90:700,7:11:0:0:91:701,9:13:0:0:92:702/1:aa:23:-1:0:2:0:0"));
	assert_false(mark_keeps_parts(tree, "a4/5:10:1:0:90:700/1:aa:23:-1:0:2:0:0"));
	assert_false(mark_keeps_parts(tree, "a4/5:12:1:0:90:700,7:11:0:0:91:701/1:aa:23:-1:0:2:0:0"));
	assert_false(mark_keeps_parts(tree, "a4/5:12:1:0:90:700,7:13:0:0:91:701/1:aa:23:-1:0:2:0:0"));
	assert_false(mark_keeps_parts("", "x"));
}

static void nonsense(void **state)
{
	(void)state;
	expect("", "a4/1:1:1/1:aa:23:-1:0:2:0", "other");
	expect("a4", "a4/", "other");
	expect("a4/x/y", "a4/1:1:1/z", "other");
	/* no number, or none of 32 bits: there the list ends */
	expect("a4/1:10:0/1:aa:23:-1:0:2:0", "a4/9999999999:10:0/1:aa:23:-1:0:2:0", "other gone");
	expect("a4/1:10:0/1:aa:23:-1:0:2:0", "a4/+2:10:0/1:aa:23:-1:0:2:0", "other gone");
	expect("a4/1:10:0/1:aa:23:-1:0:2:0", "a4/1:10:0,2:10/1:aa:23:-1:0:2:0", "other");
	expect("a4/1:10:1/1:aa:23:-1:0:2:0", "a4/1:11:1/1:aa:23:-1:0:2:0,2: bb:23:-1:0:2:0", "other refiled");
	expect("a4/1:10:1/1:aa:23:-1:0:2:0", "a4/1:11:1/1:aa:23:-1:0:2:0,2:bb:23:--1:0:2:0", "other refiled");
	expect("a4/1:10:1/1:aa:23:-1:0:2:0", "a4/1:11:1/1:aa:23:-1:0:2:0,2:bb:23:-9999999999:0:2:0", "other refiled");
	char name[200] = { 0 }, mark[300];
	memset(name, 'a', 128); /* 64 bytes */
	snprintf(mark, sizeof mark, "a4/1:11:1/1:aa:23:-1:0:2:0,2:%s:23:-1:0:2:0", name);
	expect("a4/1:10:1/1:aa:23:-1:0:2:0", mark, "other refiled");
}

RUN_TESTS(cmocka_unit_test(publications), cmocka_unit_test(rewrites), cmocka_unit_test(columns_made_again), cmocka_unit_test(generated_columns),
	cmocka_unit_test(shapes), cmocka_unit_test(partitions),
	cmocka_unit_test(unlogged), cmocka_unit_test(types), cmocka_unit_test(parts_that_are_kept),
	cmocka_unit_test(nonsense))
