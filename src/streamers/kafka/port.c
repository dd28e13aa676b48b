/* port: one of librdkafka's queues on the loop. Its threads write to an eventfd when the queue is no longer empty; we take what is there, a slice of about a
 * millisecond at a time. */
#include "kafka.h"
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct port {
	rd_kafka_queue_t *q;
	struct loop *loop;
	int fd;
	struct loop_io *io;
	struct loop_task *more;
	void (*event)(void *arg, rd_kafka_event_t *ev);
	void *arg;
	bool is_paused, is_in_turn, is_freed;
};

static void release(struct port *p)
{
	loop_io_free(p->io);
	loop_task_free(p->more);
	rd_kafka_queue_io_event_enable(p->q, -1, NULL, 0);
	close(p->fd);
	rd_kafka_queue_destroy(p->q);
	free(p);
}

static void turn(void *arg)
{
	struct port *p = arg;
	uint64_t until = loop_now_us(p->loop) + KAFKA_SLICE_US;
	rd_kafka_event_t *ev;
	p->is_in_turn = true;
	while (!p->is_freed && !p->is_paused && (ev = rd_kafka_queue_poll(p->q, 0))) {
		p->event(p->arg, ev);
		if (loop_now_us(p->loop) > until) {
			loop_task_post(p->more);
			break;
		}
	}
	p->is_in_turn = false;
	if (p->is_freed)
		release(p);
}

static void on_ready(void *arg, unsigned ready)
{
	struct port *p = arg;
	uint64_t n;
	(void)ready;
	if (read(p->fd, &n, sizeof n) == (ssize_t)sizeof n)
		turn(p);
}

struct port *port_new(struct loop *l, rd_kafka_queue_t *q, void (*event)(void *arg, rd_kafka_event_t *ev), void *arg)
{
	static const uint64_t one = 1;
	struct port *p = mem_zalloc(sizeof *p);
	*p = (struct port){ .q = q, .loop = l, .event = event, .arg = arg };
	p->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	p->io = loop_io_new(l, "kafka", p->fd, on_ready, p);
	p->more = loop_task_new(l, "kafka", turn, p);
	loop_io_want(p->io, LOOP_READ);
	rd_kafka_queue_io_event_enable(q, p->fd, &one, sizeof one);
	loop_task_post(p->more); /* what was there before */
	return p;
}

void port_pause(struct port *p) { p->is_paused = true; }

void port_resume(struct port *p)
{
	p->is_paused = false;
	loop_task_post(p->more);
}

rd_kafka_queue_t *port_queue(struct port *p) { return p->q; }

void port_free(struct port *p)
{
	if (!p)
		return;
	p->is_freed = true;
	if (!p->is_in_turn)
		release(p);
}
