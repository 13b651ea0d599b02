#!/usr/bin/env python3
"""Plants a bug into a copy of offload.h.

usage: plant.py OFFLOAD_H BUG      writes the copy to the standard output
       plant.py OFFLOAD_H          only sees whether each bug can be planted
       plant.py --list             name<TAB>what it does, one a line
       plant.py --help

A bug is a piece of offload.h that occurs exactly once, and what stands there instead. A piece that is not found any
more is an error: the bug has to be planted anew, or it is gone for good.
"""
import sys

BUGS = []


def bug(name, what, find, instead):
    BUGS.append((name, what, find, instead))

# ---- events and readiness

bug("stale_event", "an event of an fd's earlier generation is taken for the new one's",
    """    ol__slot *slot = ol__slot_of(loop, event->data.u64);
""",
    """    ol__slot *slot = ol__slot_of(loop, event->data.u64);
    const uint32_t raw = (uint32_t)event->data.u64;
    if (!slot && raw < loop->slots && (loop->slot[raw].flags & OL__OPEN)) slot = &loop->slot[raw];
""")

bug("edge_lost_while_held", "an edge that comes while the partition is held and nobody waits is swallowed",
    """    slot->bits = (uint8_t)(slot->bits | bits);
    for (int dir = OL__IN; dir <= OL__OUT; dir++) {
        ol_co *co = slot->wait[dir];
""",
    """    if (loop->part[slot->part].holder && !slot->wait[OL__IN] && !slot->wait[OL__OUT]) return;
    slot->bits = (uint8_t)(slot->bits | bits);
    for (int dir = OL__IN; dir <= OL__OUT; dir++) {
        ol_co *co = slot->wait[dir];
""")

bug("hangup_lost", "EPOLLHUP and EPOLLERR are not reported",
    """    if (event->events & (EPOLLHUP | EPOLLERR)) bits |= OL__READ | OL__WRITE | OL__ERROR;
""",
    "")

bug("eof_unseen", "the end of the stream that an event announces is not remembered",
    """    if (event->events & EPOLLRDHUP) bits |= OL__READ | OL__EOF;
""",
    """    if (event->events & EPOLLRDHUP) bits |= OL__READ;
""")

bug("cleared_too_early", "a short read counts as drained, though the end of the stream has been announced",
    """    if ((slot->flags & OL__TCP) && !(slot->bits & (OL__EOF | OL__ERROR | OL__URGENT)))
        slot->bits &= (uint8_t)~OL__READ;
""",
    """    if (slot->flags & OL__TCP) slot->bits &= (uint8_t)~OL__READ;
""")

bug("drained_by_message", "a short read counts as drained on sockets that keep the bounds of messages",
    """    return protocol == IPPROTO_TCP ? OL__SOCKET | OL__TCP : OL__SOCKET;
""",
    """    return OL__SOCKET | OL__TCP;
""")

bug("again_keeps_bit", "EAGAIN doesn't clear the readiness that it proves wrong: a handler is called again and again",
    """            slot->bits &= (uint8_t)~(OL__READ | OL__URGENT);
            return -EAGAIN;
""",
    """            return -EAGAIN;
""")

bug("wait_spins", "a coroutine that waits for an fd asks the kernel again in each round",
    """    slot->bits &= (uint8_t)~(dir == OL__IN ? OL__READ : OL__WRITE);
    slot->wait[dir] = co;
""",
    """    slot->bits |= (uint8_t)(dir == OL__IN ? OL__READ : OL__WRITE);
    ol__wake(co, OL__CO_RETRY);
    return OL__PENDING;
""")

bug("again_ignored", "what ol_again says of a call of one's own is forgotten",
    """    slot->bits &= (uint8_t)~(write ? OL__WRITE : OL__READ);
    return 0;
""",
    """    (void)write;
    return 0;
""")

bug("waiter_forgotten", "one that an event has woken is not the one that waits any more: a sibling reads what came for it",
    """        if (ol__waits(co) == OL__W_IN || ol__waits(co) == OL__W_OUT) ol__wake(co, OL__CO_RETRY);
""",
    """        if (ol__waits(co) == OL__W_IN || ol__waits(co) == OL__W_OUT) ol__wake(co, OL__CO_RETRY);
        slot->wait[dir] = NULL;
""")

bug("second_waiter", "a second coroutine may wait for the same direction of an fd: the first is never woken",
    """    if (s->wait[dir]) return ol__co_situation(co, OL__E_WAITER);
""",
    "")

bug("accept_spins", "where no fd is free ol_accept gives the error without a pause",
    """    const int pending = ol__wait_time(co, ol__after(ol__refresh(loop), OL__ACCEPT_PAUSE_NS), fd, r);
""",
    """    const int pending = ol__give(co, 1);
""")

bug("try_accept_spins", "where no fd is free a listener's handler is called again at once",
    """        slot->flags |= OL__PAUSED;
        slot->bits &= (uint8_t)~OL__READ;
""",
    """        slot->flags |= OL__PAUSED;
""")

bug("write_restarts", "a write that was resumed begins from the start again",
    """    (void)resumed; /* co->result: what earlier evaluations of this await sent */
""",
    """    if (resumed) co->result = 0;
""")

bug("connect_too_early", "a fresh socket's report of being writable is taken for the connection",
    """        slot->bits = r < 0 ? 0 : OL__READ | OL__WRITE;
""",
    "")

bug("writev_forgets", "a part that was sent is sent again",
    """        ol__iov_advance(iov, n, (size_t)k);
        co->result += k;
""",
    """        ol__iov_advance(iov, n, (size_t)k - ((size_t)k > iov->iov_len));
        co->result += k;
""")

# ---- handles and closing

bug("generation_stays", "a closed fd's handle stays good for the next fd of that number",
    """    slot->gen = ol__next_gen(slot->gen);
    slot->flags &= (uint8_t)~(OL__OPEN | OL__PAUSED);
""",
    """    slot->flags &= (uint8_t)~(OL__OPEN | OL__PAUSED);
""")

bug("foreign_fd", "a coroutine may wait for an fd of another partition",
    """    if (s->part != co->part) return ol__co_situation(co, OL__E_OTHER_PART);
""",
    "")

bug("close_forgets_waiter", "who waits for an fd is not told that another one closed it",
    """        if (slot->wait[dir]) ol__interrupt(slot->wait[dir], 0);
""",
    """        slot->wait[dir] = NULL;
""")

bug("closed_as_stale", "who waits for an fd that another one closes is told that its handle was never good",
    """    if (!s) return ol__co_situation(co, *resumed ? OL__E_CLOSED : OL__E_STALE); /* during the wait, or before it */
""",
    """    if (!s) return ol__co_situation(co, OL__E_STALE);
""")

bug("close_too_early", "close(2) comes while operations of the partition are under way",
    """    if (loop->part[index].ops) {
        const int shared""",
    """    if (0) {
        const int shared""")

bug("close_waits_for_ever", "close(2) never follows the last operation",
    """    if (!part->closing || part->ops) return;
""",
    """    if (part->closing || part->ops) return;
""")

bug("close_cancels_nothing", "operations of a closed fd get no request to stop",
    """        for (ol_op *op = loop->part[index].ops, *next; op; op = next) {
            next = op->next_in_part_;
            ol__op_stop(loop, op, OL__OP_CANCEL);
        }
    } else {
""",
    """    } else {
""")

bug("close_unseen", "the peer learns of a close when the operations are done, not at once",
    """        if ((slot->flags & OL__SOCKET) && !shared) (void)OL_SYS_SHUTDOWN((int)fd);
""",
    """        (void)shared;
""")

# ---- the gate

bug("two_roots", "a root starts although another one lives in its partition",
    """    if (index == 0 || ol__held(part)) return;
    for (ol__item item = ol__pop(&part->waiting);""",
    """    if (index == 0) return;
    for (ol__item item = ol__pop(&part->waiting);""")

bug("released_before_done", "the partition is free while an operation in callback form is out",
    """static int ol__held(const ol__part *part) { return part->holder || part->ops; }
""",
    """static int ol__held(const ol__part *part) { return part->holder != 0; }
""")

bug("withheld_starves", "the newest of those that wait for a partition goes first",
    """    ol__push(&part->waiting, item);
    ol__part_release(loop, index);
""",
    """    if (part->waiting.head && (item & OL__KIND) != OL__CO) {
        ol__item_set_next(item, part->waiting.head);
        part->waiting.head = item;
    } else {
        ol__push(&part->waiting, item);
    }
    ol__part_release(loop, index);
""")

bug("release_forgotten", "the end of a callback in a partition lets nobody follow",
    """    ol__callback_begin(loop, index);
    timer->fn(loop, timer);
    ol__callback_end(loop, index);
    ol__part_release(loop, index);
""",
    """    ol__callback_begin(loop, index);
    timer->fn(loop, timer);
    ol__callback_end(loop, index);
    if (loop->part[index].waiting.head == 0) ol__part_release(loop, index);
""")

bug("handler_once", "a handler is called once for each edge, not as long as there is something to read",
    """    if (slot && slot->handler) (void)ol__line_up(loop, slot);
""",
    "")

bug("handler_not_gated", "a handler is called while a root lives in its partition",
    """    if (!ol__line_up(loop, slot)) return;
    if (ol__held""",
    """    if (slot->handler->state_ || !ol__handler_ready(slot)) return;
    if ((loop->part[slot->part].holder & OL__KIND) == OL__CO && loop->part[slot->part].holder) {
        slot->handler->state_ = OL__ADMITTED;
        ol__ready_push(loop, slot->cls, ol__item_handler(slot->handler));
        return;
    }
    if (!ol__line_up(loop, slot)) return;
    if (ol__held""")

bug("withheld_one_way", "a handler is called for writing while its partition is held",
    """    if (!ol__line_up(loop, slot)) return;
    if (ol__held""",
    """    if (slot->handler->state_ || !ol__handler_ready(slot)) return;
    if ((slot->bits & slot->handler->events & OL__WRITE) && ol__held(&loop->part[slot->part])) {
        slot->handler->state_ = OL__ADMITTED;
        ol__ready_push(loop, slot->cls, ol__item_handler(slot->handler));
        return;
    }
    if (!ol__line_up(loop, slot)) return;
    if (ol__held""")

bug("handler_after_close", "a handler that was to run is called although its fd was closed meanwhile",
    """    if (state) ol__withdraw(loop, slot->part, ol__item_handler(h));
""",
    """    if (state == OL__QUEUED) ol__withdraw(loop, slot->part, ol__item_handler(h));
""")

bug("handler_lost", "a handler that had nothing to do when its turn came never gets in line again",
    """        h->state_ = 0;
        if (!ol__handler_ready(slot)) return 0; /* the holder has read it all */
""",
    """        if (!ol__handler_ready(slot)) return 0;
""")

bug("handler_stays", "a handler that another one has replaced is called when its turn comes",
    """    if (state) ol__withdraw(loop, slot->part, ol__item_handler(h));
""",
    """    if (state == OL__ADMITTED) ol__withdraw(loop, slot->part, ol__item_handler(h));
""")

bug("handler_unasked", "a handler is called for what it doesn't watch for",
    """    return slot->bits & (slot->flags & OL__GUEST ? OL__READ | OL__WRITE : slot->handler->events);
""",
    """    return slot->bits & (OL__READ | OL__WRITE);
""")

bug("try_ignores_gate", "a call that doesn't wait reads from an fd whose partition somebody else holds",
    """    if (mine != slot->part && ol__held(&loop->part[slot->part])) return ol__fail(OL__E_HELD);
""",
    """    (void)mine;
""")

bug("timer_not_gated", "a timer that names a fd fires although the partition is held",
    """            if (slot) {
                timer->part_ = slot->part;
                ol__gate(loop, slot->part, e.target);
            } else {
""",
    """            {
""")

bug("post_not_gated", "a post that names a fd runs although the partition is held",
    """        if (slot) {
            node->part_ = slot->part;
            loop->posts_held++;
""",
    """        if (0) {
            node->part_ = slot->part;
            loop->posts_held++;
""")

bug("timer_stops_late", "a timer that is stopped while it waits for its partition is called",
    """    ol__timer_withdraw(loop, timer);
    ol__outside(loop);
}
""",
    """    ol__outside(loop);
}
""")

bug("post_reposted", "a post that waits for its partition counts as done and can be queued a second time",
    """        void *next = OL_SYS_XCHG(&node->next, slot ? OL__LIST_END : NULL, OL_SYS_ACQUIRE);
""",
    """        void *next = OL_SYS_XCHG(&node->next, NULL, OL_SYS_ACQUIRE);
""")

# ---- joins, locks, children

bug("join_forgets_member", "a join takes over one fd of the other partition only",
    """    while (old->fd) {
        const uint32_t fd = old->fd - 1;
        ol__part_remove_fd(loop, fd);
        ol__part_add_fd(loop, into, fd);
    }
""",
    """    if (old->fd) {
        const uint32_t fd = old->fd - 1;
        ol__part_remove_fd(loop, fd);
        ol__part_add_fd(loop, into, fd);
    }
""")

bug("join_drops_waiting", "who waited for the partition that was joined is forgotten",
    """        } else {
            ol__push(&loop->part[into].waiting, i);
        }
""",
    """        } else if (kind != OL__CO) {
            ol__push(&loop->part[into].waiting, i);
        }
""")

bug("join_forgets_timers", "a timer that waits for a partition that was joined runs in what that was",
    """        if (kind == OL__TIMER) ((ol_timer *)ol__item_to(i))->part_ = into;
""",
    "")

bug("join_by_force", "two partitions that are both held can be joined from a callback",
    """        if (ol__held(&loop->part[x->part])) return ol__fail(OL__E_JOIN);
""",
    "")

bug("join_does_not_wait", "a join takes over a partition that is held",
    """    if (!ol__held(&loop->part[slot->part])) {
        ol__merge(loop, co->part, slot->part);
        return ol__give_0(co);
    }
""",
    """    if (!loop->part[slot->part].ops) {
        ol__merge(loop, co->part, slot->part);
        return ol__give_0(co);
    }
""")

bug("join_after_close", "who waits to join a fd is not told that it was closed",
    """        if ((i & OL__KIND) == OL__CO && ol__waits(co) == OL__W_JOIN && co->result == handle) ol__interrupt(co, 0);
""",
    """        if (handle == 0) ol__interrupt(co, 0);
""")

bug("class_not_raised", "a joined partition keeps its different classes",
    """    ol__part_free(loop, from);
    ol__part_level(loop, into);
""",
    """    ol__part_free(loop, from);
""")

bug("lock_to_the_dead", "a waiter that was cancelled stays in the lock's queue",
    """    if (what == OL__W_CHILD) return;
    ol__queue *q""",
    """    if (what == OL__W_CHILD || what == OL__W_LOCK) return;
    ol__queue *q""")

bug("lock_kept_at_end", "a lock stays taken when its holder ends",
    """        ol__lock_drop(loop, m);
        if (left < 15 && --left == 0) break;
""",
    """        if (m->waiting_.head == 0) ol__lock_drop(loop, m);
        if (left < 15 && --left == 0) break;
""")

bug("lock_given_twice", "a lock can be taken by the next who asks, though it was handed on to a waiter",
    """    ol__lock_take(next, m);
    next->result = 0;
""",
    """    next->result = 0;
""")

bug("lock_unfair", "who asks last for a lock gets it first",
    """    if (q) ol__push(q, ol__item_co(co));
    return OL__PENDING;
""",
    """    if (q && what == OL__W_LOCK && q->head) {
        ol__item_set_next(ol__item_co(co), q->head);
        q->head = ol__item_co(co);
    } else if (q) {
        ol__push(q, ol__item_co(co));
    }
    return OL__PENDING;
""")

bug("unlock_by_anyone", "a lock can be released by one that doesn't hold it",
    """    if (!co || !mutex || mutex->holder != co) return ol__fail(OL__E_NOT_HOLDER);
""",
    """    if (!co || !mutex || !mutex->holder) return ol__fail(OL__E_NOT_HOLDER);
""")

bug("deadlock_in_locks", "a circle of locks is not seen",
    """    case OL__W_LOCK: return ol__seen(loop, ((const ol_mutex *)(uintptr_t)co->result)->holder);
""",
    """    case OL__W_LOCK: return 0;
""")

bug("deadlock_in_joins", "a circle of joins is not seen",
    """    case OL__W_JOIN: return ol__seen_group(loop, ol__slot_of(loop, (ol_fd)co->result)->part, 1);
""",
    """    case OL__W_JOIN: return 0;
""")

bug("deadlock_by_child", "a circle that runs through a child of the holder is not seen",
    """    for (ol_child *c = part->children; c && !r; c = c->next_) r = ol__seen(loop, &c->co);
    return r;
""",
    """    return r;
""")

bug("deadlock_by_move", "a circle that a join closes by moving a line is not seen",
    """        if (!refused) continue;
        (void)ol__unlink(q, i);
""",
    """        if (refused != OL__E_NO_MEMORY) continue;
        (void)ol__unlink(q, i);
""")

bug("deadlock_invented", "waiting for somebody who waits is called a deadlock",
    """        if (loop->seen[i] == co) r = OL__E_DEADLOCK;
""",
    """        if (loop->seen[i] == co || ol__waits(loop->seen[i]) == OL__W_LOCK) r = OL__E_DEADLOCK;
""")

bug("child_outlives_root", "a root ends although it has children",
    """        if (loop->part[co->part].children) {
""",
    """        if (loop->part[co->part].children && resume) {
""")

bug("child_not_cancelled", "cancelling a root leaves its children alone",
    """    for (ol_child *c = part->holder == ol__item_co(co) ? part->children : NULL; c; c = c->next_) ol__cancel_one(&c->co);
""",
    """    (void)part;
""")

bug("wait_for_all_too_early", "waiting for all children ends with the first",
    """    ol__child_tell(root, co, !part->children);
""",
    """    ol__child_tell(root, co, 1);
""")

bug("sibling_not_told", "a child that waits for another is not told of its end",
    """    for (ol_child *c = co->frame.bits & OL__CO_AWAITED ? part->children : NULL; c; c = c->next_)
""",
    """    for (ol_child *c = NULL; c; c = c->next_)
""")

bug("child_unaware", "a child doesn't inherit the request to end",
    """                (co->frame.bits & (OL__CO_CLASS | OL__CO_CANCELED)) | (uint32_t)OL__CO_CHILD);
""",
    """                (co->frame.bits & OL__CO_CLASS) | (uint32_t)OL__CO_CHILD);
""")

# ---- coroutines and time

bug("deadline_not_lowered", "a deadline that is set earlier takes effect at the old time",
    """    else if (when < e.when || wake != OL_NEVER)
        ol__heap_rekey(loop, co->timer, e);
""",
    """    else if (wake != OL_NEVER)
        ol__heap_rekey(loop, co->timer, e);
""")

bug("heap_hole", "the last entry of the timer heap is put into a hole without being moved up",
    """        if (last.when < loop->heap[i].when)
            ol__heap_up(loop, i, last);
        else
            ol__heap_down(loop, i, last);
""",
    """        ol__heap_down(loop, i, last);
""")

bug("cancel_forgotten", "a cancel that comes while the coroutine is ready is forgotten",
    """    if (co->frame.bits & OL__CO_CANCELED) return;
    co->frame.bits |= OL__CO_CANCELED;
    ol__interrupt(co, OL__OP_CANCEL);
""",
    """    if (co->frame.bits & OL__CO_CANCELED) return;
    if (ol__waits(co) != OL__W_READY) co->frame.bits |= OL__CO_CANCELED;
    ol__interrupt(co, OL__OP_CANCEL);
""")

bug("cancel_shows_once", "a request to end shows at one await, and not at the next",
    """    ol__co_error(co, why, -ol__texts[why].number);
    return 0;
}

/* Takes `cost` from the budget; 0 when it is used up. */
""",
    """    ol__co_error(co, why, -ol__texts[why].number);
    co->frame.bits &= ~(uint32_t)OL__CO_CANCELED;
    return 0;
}

/* Takes `cost` from the budget; 0 when it is used up. */
""")

bug("deadline_shows_once", "a deadline that has passed shows at one await, and not at the next",
    """    const enum ol__situation why = bits & OL__CO_CANCELED ? OL__E_CANCELED : OL__E_DEADLINE;
""",
    """    const enum ol__situation why = bits & OL__CO_CANCELED ? OL__E_CANCELED : OL__E_DEADLINE;
    co->frame.bits &= ~(uint32_t)OL__CO_EXPIRED;
""")

bug("sleep_restarts", "a sleep that was interrupted begins from the start again",
    """    return ol__wait_time(co, resumed ? co->result : ol__after(ol__refresh(co->loop), ns > 0 ? ns : 0), 0, 0);
""",
    """    (void)resumed;
    return ol__wait_time(co, ol__after(ol__refresh(co->loop), ns > 0 ? ns : 0), 0, 0);
""")

bug("drain_forgets_waiting", "roots that wait for their partition are not told to end by a drain",
    """                ol__item_to_co(item)->frame.bits |= OL__CO_CANCELED; /* who joins is found where it lives */
""",
    """                (void)item;
""")

bug("batch_starves", "batch work waits as long as there is latency-critical work",
    """    if (other) loop->latency_streak++;
""",
    "")

bug("class_inverted", "who is woken goes to the ready queue of the other class",
    """    ol__push(&co->loop->ready[ol__co_class(co)], ol__item_co(co));
}
""",
    """    ol__push(&co->loop->ready[OL_LATENCY + OL_BATCH - ol__co_class(co)], ol__item_co(co));
}
""")

bug("turn_unlimited", "a round runs all that was ready, however much that is",
    """    for (uint32_t i = 1; i <= loop->desc.turn && (last[OL_LATENCY] || last[OL_BATCH]); i++) {
""",
    """    for (uint32_t i = 1; last[OL_LATENCY] || last[OL_BATCH]; i++) {
""")

bug("run_ends_early", "a loop says that nothing is left although a timer runs",
    """    return loop->stats.roots || loop->ops || loop->user_timers || loop->handlers || loop->posts_held ||
""",
    """    return loop->stats.roots || loop->ops || loop->handlers || loop->posts_held ||
""")

bug("budget_unlimited", "a coroutine whose awaits can all go on at once never lets others run",
    """    if (loop->budget < cost) {
        loop->budget = 0;
        return 0;
    }
    loop->budget -= cost;
    return 1;
""",
    """    if (cost > 1024) return 0;
    return loop != NULL;
""")

# ---- operations

bug("completed_twice", "an operation that is cancelled completes at once, and again when the backend hands it back",
    """        if (lane->backend->cancel && loop->forks == ol__forks) (void)lane->backend->cancel(lane->channel.self, op);
        return;
""",
    """        if (lane->backend->cancel && lane->backend->cancel(lane->channel.self, op) == 0 && !(op->flags_ & OL__OP_AWAITED)) {
            op->result = -ECANCELED;
            ol__op_finish(loop, op);
        }
        return;
""")

bug("cancel_abandons", "an await whose operation is asked to stop ends at once: its buffers are freed while they are in use",
    """(void)lane->backend->cancel(lane->channel.self, op);
        return;
""",
    """(void)lane->backend->cancel(lane->channel.self, op);
        if ((op->flags_ & OL__OP_AWAITED) && loop->sync_op != op) {
            ol_co *co = op->owner_.co;
            ol__op_unlist(loop, op);
            ol__co_error(co, OL__E_CANCELED, -ECANCELED);
            ol__wake(co, OL__CO_DONE);
        }
        return;
""")

bug("timeout_abandons", "an operation's timeout completes it although a backend still has it",
    """(void)lane->backend->cancel(lane->channel.self, op);
        return;
""",
    """(void)lane->backend->cancel(lane->channel.self, op);
        if (!(op->flags_ & (OL__OP_AWAITED | OL__OP_CANCEL))) {
            op->result = -ECANCELED;
            ol__op_finish(loop, op);
        }
        return;
""")

bug("cancel_loses", "an operation that is cancelled while it waits for room never completes",
    """        line->parked_n--;
    }
    op->result = -ECANCELED;
""",
    """        line->parked_n--;
        op->state_ = OL__BACKEND;
    }
    if (!staged) return;
    op->result = -ECANCELED;
""")

bug("parked_for_ever", "operations that waited for room are never submitted",
    """        for (; line->parked_n && ol__has_room(lane, k); line->parked_n--)
            ol__stage(loop, lane, ol__item_to_op(ol__pop(&line->parked)));
""",
    """        for (; line->parked_n > 1 && ol__has_room(lane, k); line->parked_n--)
            ol__stage(loop, lane, ol__item_to_op(ol__pop(&line->parked)));
""")

bug("only_completions_resubmit", "operations that the backend refused are tried again only when another completes",
    """            if ((l->line[k].staged.head || l->line[k].parked_n) && t > OL__RETRY_NS) t = OL__RETRY_NS;
""",
    """            (void)k;
""")

bug("refused_dropped", "what a backend doesn't take of a burst is lost",
    """        ol__put_back(line, burst[i]);
""",
    """        if (i || n < 2) ol__put_back(line, burst[i]);
""")

bug("failed_dropped", "what waits for a backend that fails is lost",
    """            while (q->head) ol__op_here(loop, lane, line, ol__item_to_op(ol__pop(q)), OL_WHY_FAILED);
""",
    """            while (q->head) (void)ol__pop(q);
""")

bug("fallback_silent", "an operation that runs on the spot for lack of room doesn't say so",
    """        ol__op_software(loop, op, OL_WHY_FULL);
        return 1;
""",
    """        ol__op_software(loop, op, OL_WHY_RULE);
        return 1;
""")

bug("lines_shared", "batch operations take the room of latency-critical ones",
    """    return call + (ol__op_class(op) == OL_LATENCY ? 0 : OL__OF_BATCH);
""",
    """    return call;
""")

bug("overtaken", "what a backend doesn't take of a burst goes back in the wrong order",
    """    for (int i = n; i-- > 0;) {
        if (burst[i]->flags_ & OL__OP_ELSE_HERE) continue;
""",
    """    for (int i = 0; i < n; i++) {
        if (burst[i]->flags_ & OL__OP_ELSE_HERE) continue;
""")

bug("timeout_too_early", "an operation's timeout is a thousandth of what was asked for",
    """ol__after(ol__refresh(loop), (int64_t)op->timeout_us * 1000) : OL_NEVER;
""",
    """ol__after(ol__refresh(loop), (int64_t)op->timeout_us) : OL_NEVER;
""")

bug("park_unlimited", "any number of operations may wait for a full backend",
    """    if (full && (action != OL_FULL_WAIT || line->parked_n >= loop->desc.park_max)) {
""",
    """    if (full && action != OL_FULL_WAIT) {
""")

bug("depth_ignored", "a backend gets more than its depth",
    """    const int full = line->parked_n || !ol__has_room(lane, which);
""",
    """    const int full = line->parked_n != 0;
""")

bug("kinds_ignored", "a backend gets operations that it can't do",
    """    if (index && !(lane->backend->kinds >> op->kind & 1)) {
""",
    """    if (index && !lane->backend->kinds) {
""")

bug("full_inverted", "where the policy says nothing, latency-critical operations wait for a full backend and batch ones don't",
    """    return rule->full ? rule->full : (uint8_t)(cls == OL_LATENCY ? OL_FULL_SOFTWARE : OL_FULL_WAIT);
""",
    """    return rule->full ? rule->full : (uint8_t)(cls != OL_LATENCY ? OL_FULL_SOFTWARE : OL_FULL_WAIT);
""")

bug("rule_bound", "a rule's upper bound doesn't belong to its range",
    """        const int fits = bytes >= r->min && (!r->max || bytes <= r->max);
""",
    """        const int fits = bytes >= r->min && (!r->max || bytes < r->max);
""")

bug("class_not_inherited", "operations of a latency-critical coroutine or callback count as batch",
    """    uint32_t inherited = co ? ol__co_class(co) : part ? ol__part_class(loop, &loop->part[part]) : 0;
""",
    """    uint32_t inherited = 0;
""")

bug("sync_steals", "a synchronous wait keeps the completions of others to itself",
    """    if (loop->sync_op == op)
        loop->sync_op = NULL;
    else
        ol__wake(co, OL__CO_DONE);
""",
    """    if (loop->sync_op == op)
        loop->sync_op = NULL;
    else if (!loop->sync_op)
        ol__wake(co, OL__CO_DONE);
""")

bug("sync_unbounded", "a synchronous wait lasts until its operation is complete, however long that takes",
    """        if (i % 16 == 0 && ol__refresh(loop) - begin >= loop->desc.sync_ns) {
""",
    """        if (i % 16 == 0 && ol__refresh(loop) - begin >= OL_NEVER) {
""")

bug("sync_on_own_core", "a synchronous wait spins for a backend that needs the loop's core",
    """    const int spin = awaited && !(lane->channel.flags & OL_CHANNEL_NO_SYNC);
""",
    """    const int spin = awaited;
""")

bug("poll_forgotten", "a backend that can't notify is polled when something else happens",
    """        if (l->in_backend && !(l->channel.flags & OL_CHANNEL_NOTIFIES)) {
""",
    """        if (l->in_backend && !l->backend->poll) {
""")

# ---- sleep, wake, threads

bug("no_second_look", "the loop announces its sleep and sleeps, without another look for work",
    """    if (ol__work_waits(loop))
        wait = 0;
    else
        loop->stats.sleeps++;
""",
    """    loop->stats.sleeps++;
""")

bug("notify_before_publish", "a worker wakes the loop before it has published the completion",
    """    ol_op *top = OL_SYS_LOAD(&c->done, OL_SYS_RELAXED);
    do op->next_ = top;
    while (!OL_SYS_CAS(&c->done, &top, op, OL_SYS_RELEASE));
    ol_notify_loop(c->notify);
""",
    """    ol_notify_loop(c->notify);
    ol_op *top = OL_SYS_LOAD(&c->done, OL_SYS_RELAXED);
    do op->next_ = top;
    while (!OL_SYS_CAS(&c->done, &top, op, OL_SYS_RELEASE));
""")

bug("worker_sleeps_blind", "a worker looks for work before it announces its sleep, not after",
    """    if (OL_SYS_LOAD(&w->pool->stop, OL_SYS_RELAXED) || ol__worker_sees_work(w))
        ol__semaphore_leave(s);
    else
        ol__semaphore_wait(s);
""",
    """    if (OL_SYS_LOAD(&w->pool->stop, OL_SYS_RELAXED))
        ol__semaphore_leave(s);
    else
        ol__semaphore_wait(s);
""")

bug("cancelled_runs", "a cancelled operation is taken off the ring, and a worker runs it all the same",
    """        return OL_SYS_CAS(&r->slot[i & r->mask], &expected, OL__TOMB, OL_SYS_RELAXED);
""",
    """        return expected == op;
""")

bug("claimed_and_lost", "a worker that claims several operations drops the last",
    """    for (uint64_t i = 0; i < n; i++) {
        ol_op *op = ol__ring_take(r, first + i);
""",
    """    for (uint64_t i = 0; i < n; i++) {
        ol_op *op = i && i + 1 == n ? NULL : ol__ring_take(r, first + i);
""")

bug("calls_take_all", "every worker runs calls, so that calls can take all of them",
    """static int ol__worker_takes_calls(const ol__worker *w) { return w->index != 1; }
""",
    """static int ol__worker_takes_calls(const ol__worker *w) { return w != NULL; }
""")

bug("batch_before_latency", "a worker takes the rest of a batch that it has claimed before what is latency-critical",
    """        while ((which & OL__OF_BATCH) && ol__worker_rings(w, 0)) {}
""",
    "")

bug("channel_closed_early", "a channel is closed while a worker still announces a completion to it",
    """        while (OL_SYS_LOAD(&c->pool->worker[i].busy, OL_SYS_ACQUIRE) == c) OL_SYS_NAP(); /* it may need our core */
""",
    """        (void)OL_SYS_LOAD(&c->pool->worker[i].busy, OL_SYS_ACQUIRE);
""")

# ---- guests, forks

bug("guest_not_armed", "a step for a guest ends without a look at what came meanwhile",
    """    const int64_t wait = ol__work_waits(loop) ? 0 : ol__may_sleep(loop, -1);
    const int64_t due""",
    """    const int64_t wait = ol__may_sleep(loop, -1);
    const int64_t due""")

bug("guest_timer_stays", "the timer of a guest's fd is not set again when the next time changes",
    """    if (due == loop->armed) return;
""",
    """    if (loop->armed != OL_NEVER) return;
""")

bug("guest_not_told", "work that is made outside of a step doesn't make a guest's fd readable",
    """    if (loop->timerfd >= 0 && !loop->inside && loop->forks == ol__forks) ol_notify_loop(&loop->notify);
""",
    """    (void)loop;
""")

bug("guest_overwrites", "what a guest withheld last replaces what it withheld before",
    """        slot->bits = (uint8_t)(slot->bits | ready);
""",
    """        slot->bits = (uint8_t)ready;
""")

bug("guest_let_in", "an event of a guest's is let in although an operation of an earlier one is out",
    """    if (ol__held(&loop->part[slot->part])) {
        slot->bits""",
    """    if (loop->part[slot->part].holder) {
        slot->bits""")

bug("guest_forgotten", "what a guest withheld is never told to it",
    """        ol__offer(loop, slot);
        return 0;
    }
    loop->guest_part""",
    """        return 0;
    }
    loop->guest_part""")

bug("fork_keeps_operations", "operations that the parent has are waited for in the child",
    """            op->result = ol__op_fail(op, OL__E_FORKED);
            ol__op_finish(loop, op);
""",
    """            if (op->state_ != OL__BACKEND) {
                op->result = ol__op_fail(op, OL__E_FORKED);
                ol__op_finish(loop, op);
            }
""")

bug("fork_shares_epoll", "the child of a fork changes the registrations of its parent",
    """    fresh[0] = OL_SYS_EPOLL_CREATE();
""",
    """    for (uint32_t fd = 0; fd < loop->slots; fd++)
        if (loop->slot[fd].flags & OL__OPEN) (void)OL_SYS_EPOLL_CTL(loop->ep, EPOLL_CTL_DEL, (int)fd, NULL);
    fresh[0] = OL_SYS_EPOLL_CREATE();
""")

bug("fork_forgets_fds", "the child of a fork doesn't register what it has inherited",
    """        if ((loop->slot[fd].flags & (OL__OPEN | OL__GUEST)) == OL__OPEN && !ol__is_one_of((int)fd, fresh) &&
""",
    """        if ((loop->slot[fd].flags & (OL__OPEN | OL__GUEST)) == OL__GUEST && !ol__is_one_of((int)fd, fresh) &&
""")

bug("fork_shuts_down", "a close in the child of a fork ends the parent's connection",
    """        const int shared = (slot->flags & OL__INHERITED) || loop->forks != ol__forks;
""",
    """        const int shared = 0;
""")

bug("fork_without_threads", "the pool counts on its parent's threads in the child of a fork",
    """    OL_SYS_STORE(&pool->started, 0u, OL_SYS_RELAXED);
}
""",
    """}
""")

bug("fork_without_timer", "a guest's timerfd is the parent's in the child of a fork",
    """    loop->timerfd = fresh[2];
""",
    """    if (fresh[2] >= 0 && loop->timerfd < 0) loop->timerfd = fresh[2];
""")

# ---- sliced, steps

bug("slice_endless", "a slice goes on until the operation is done",
    """    while (r == OL_MORE && now - begin < loop->desc.slice_ns) {
        r = ol__step""",
    """    while (r == OL_MORE) {
        r = ol__step""")

bug("slice_of_one_step", "a slice is over after one step, however short",
    """    while (r == OL_MORE && now - begin < loop->desc.slice_ns) {
        r = ol__step(s->exec, op, s->first);
        s->first = 0;
        now = OL_SYS_NOW();
    }
""",
    """    if (r == OL_MORE) {
        r = ol__step(s->exec, op, s->first);
        s->first = 0;
        now = OL_SYS_NOW();
    }
""")

bug("slice_at_once", "what is not done is sliced again before anything else",
    """    if (r == OL_MORE) {
        ol__push(&loop->ready[ol__op_class(op)], ol__item_op(op));
        return;
    }
    op->result = r;
""",
    """    if (r == OL_MORE) {
        ol__queue *q = &loop->ready[ol__op_class(op)];
        ol__item_set_next(ol__item_op(op), q->head);
        q->head = ol__item_op(op);
        if (!q->tail) q->tail = q->head;
        return;
    }
    op->result = r;
""")

bug("slice_side_by_side", "a second operation of a class begins while one is under way",
    """    if (s->op) {
        ol__push(&s->waiting, ol__item_op(op));
        s->waiting_n++;
    } else {""",
    """    if (s->op && s->waiting_n) {
        ol__push(&s->waiting, ol__item_op(op));
        s->waiting_n++;
    } else {""")

bug("slice_line_turned", "who came last is sliced next",
    """        ol__push(&s->waiting, ol__item_op(op));
        s->waiting_n++;
""",
    """        ol__item_set_next(ol__item_op(op), s->waiting.head);
        s->waiting.head = ol__item_op(op);
        if (!s->waiting.tail) s->waiting.tail = s->waiting.head;
        s->waiting_n++;
""")

bug("slice_stops_late", "an operation that waits to be sliced is not stopped before its turn",
    """        if (!ol__unlink(&s->waiting, ol__item_op(op))) return;
        s->waiting_n--;
""",
    """        if (s->waiting_n != 1 || !ol__unlink(&s->waiting, ol__item_op(op))) return;
        s->waiting_n--;
""")

bug("slice_not_stopped", "an operation under way in slices doesn't notice that it is to stop",
    """r = op->flags_ & (OL__OP_CANCEL | OL__OP_EXPIRED) ? -ECANCELED : OL_MORE;""",
    """r = OL_MORE;""")

bug("slice_line_forgotten", "the next operation is not begun when one in slices was stopped",
    """    if (s->waiting_n) {
        s->waiting_n--;
        ol__slice_begin""",
    """    if (s->waiting_n && r != -ECANCELED) {
        s->waiting_n--;
        ol__slice_begin""")

bug("slice_files", "a file operation, which may block, is sliced",
    """ || (mode == OL_SLICED && op->kind == OL_OP_FILE)) {""",
    """) {""")

bug("fork_stops_slices", "what is being sliced is stopped in the child of a fork",
    """if (op->state_ == OL__FINISHED || op->state_ == OL__SLICING) continue;""",
    """if (op->state_ == OL__FINISHED) continue;""")

bug("step_result_lost", "of a call in steps that runs in one go the first step is taken for all",
    """        if (r == OL_MORE && op->format == OL_STEPS) return r;
""",
    """        if (r == OL_MORE && op->format == OL_STEPS && x->piece != OL_SYS_PIECE) return r;
""")

bug("step_too_many", "a step too many",
    """    for (int first = 1; (r = ol__step(x, op, first)) == OL_MORE;) first = 0;
""",
    """    for (int first = 1; (r = ol__step(x, op, first)) == OL_MORE;) first = 0;
    if (op->kind == OL_OP_CALL && op->format == OL_STEPS) (void)ol__step(x, op, 0);
""")

bug("step_begins_anew", "a checksum begins anew with each step",
    """        if (first) x->check = op->u.crc;
""",
    """        x->check = op->u.crc;
        (void)first;
""")

# ---- auto

bug("auto_dearest", "auto takes the dearest way",
    """        if (cost[way] < cost[best]) best = way;
""",
    """        if (cost[way] > cost[best]) best = way;
""")

bug("auto_never_again", "auto never tries another way again",
    """    if (cell->probe == 0 && (ol__op_class""",
    """    if (cell->interval == 0 && (ol__op_class""")

bug("auto_file_here", "auto runs what may block on the loop",
    """    if (op->kind == OL_OP_FILE) return OL_ASYNC; /* what may block has no choice */
""",
    "")

bug("auto_spins_for_batch", "auto spins for batch work",
    """spin && alone && ol__op_class(op) == OL_LATENCY ? 3 : 2;""",
    """spin && alone ? 3 : 2;""")

bug("auto_spins_with_others", "auto spins while other latency-critical work is out",
    """spin && alone && ol__op_class(op) == OL_LATENCY ? 3 : 2;""",
    """spin && ol__op_class(op) == OL_LATENCY ? 3 : 2;""")

bug("auto_never_sliced", "what auto keeps on the loop is never sliced",
    """    if (way == OL__HERE && (here > 0 ? here""",
    """    if (way == OL__HERE && !here && (here > 0 ? here""")

bug("stall_unseen", "auto goes on with a backend that completes nothing",
    """    const int stalled = ol__in_flight(lane) && loop->now""",
    """    const int stalled = !ol__in_flight(lane) && loop->now""")

bug("stall_too_early", "auto avoids a backend that has had nothing to do",
    """        lane->progress = loop->now;
        lane->work = 0;""",
    """        lane->work = 0;""")

bug("stall_for_ever", "auto never tries a backend again that has stalled",
    """    if (lane->shun_left) {
        lane->shun_left--;
        return 1;
    }
""",
    """    if (lane->shun) return 1;
""")

bug("stall_goes_on", "a backend that completes something is avoided all the same",
    """            if (got[i]->result != -ECANCELED) lane->shun = 0;
            else if""",
    """            if""")

# ---- one queue

bug("one_queue_of_lines", "a queue for all is filled by each class and sort",
    """    return ol__in_flight(lane) + (which & OL__OF_BATCH""",
    """    return lane->line[which].in_flight + (which & OL__OF_BATCH""")

bug("reserve_taken", "batch work takes the places that are kept for latency-critical work",
    """(which & OL__OF_BATCH ? lane->channel.reserve : 0) < lane->channel.depth;""",
    """0 * which < lane->channel.depth;""")

bug("reserve_for_nobody", "latency-critical work doesn't get the places that are kept for it",
    """(which & OL__OF_BATCH ? lane->channel.reserve : 0) < lane->channel.depth;""",
    """(which < 4 ? lane->channel.reserve : 0) < lane->channel.depth;""")

bug("reserve_of_all", "a reserve as large as the depth leaves no place for batch work",
    """    if (c->reserve >= c->depth) c->reserve = c->depth - 1;
""",
    "")

bug("one_queue_without_calls", "calls don't count in a queue for all",
    """    return n + lane->line[OL__CALLS].in_flight + lane->line[OL__CALLS + OL__OF_BATCH].in_flight;
""",
    """    return n;
""")

# ---- figures

bug("sample_kept", "the place of a sample is lost where its operation runs in software after all",
    """    ol__sample_drop(loop, op);
    ol__op_software(loop, op, why);
    ol__op_finish(loop, op);
""",
    """    op->sample_ = 0;
    ol__op_software(loop, op, why);
    ol__op_finish(loop, op);
""")

bug("sample_kept_by_stopped", "the place of a stopped operation's sample is lost",
    """    ol__sample_free(loop, op);
    if (op->result == -ECANCELED) return; /* it says nothing of the work */
""",
    """    if (op->result == -ECANCELED) return; /* it says nothing of the work */
    ol__sample_free(loop, op);
""")

bug("sample_of_stopped", "the times of a stopped operation count",
    """    if (op->result == -ECANCELED) return; /* it says nothing of the work */
""",
    "")

bug("sample_one_more", "one operation more than asked for stays without times",
    """    if (++loop->sampled < loop->desc.sample) return 0;
""",
    """    if (loop->sampled++ < loop->desc.sample) return 0;
""")

bug("cell_next", "an operation of 256 bytes counts among the smaller ones",
    """    return bytes < 256 ? 0 :""",
    """    return bytes <= 256 ? 0 :""")

bug("cell_mode", "who waits longer than he may spin counts as one who has spun",
    """    if (op->mode == OL_SYNC) op->mode = OL_ASYNC;
""",
    """    if (op->mode == OL_SYNC) ol__cell_of(loop, op->kind, ol__op_class(op), op->len)->n[OL_SYNC]++;
    if (op->mode == OL_SYNC) op->mode = OL_ASYNC;
""")

bug("why_of_cached", "what was answered from the cache isn't counted",
    """    ol__op_counted(co->loop, op);
    ol__co_result(co, op);
    return ol__give(co, 1 + ol__op_cost(op) / 8);
""",
    """    ol__co_result(co, op);
    return ol__give(co, 1 + ol__op_cost(op) / 8);
""")

bug("waited_uncounted", "the time in the kernel is not counted where no event comes",
    """    loop->stats.waited_ns += (uint64_t)(loop->polled - before);
""",
    """    if (n > 0) loop->stats.waited_ns += (uint64_t)(loop->polled - before);
""")

bug("histogram_range", "a time is looked for one range too low",
    """        if (h->n[i] >= left) return (int64_t)ol__least(upper, h->max);
""",
    """        if (h->n[i] >= left) return (int64_t)ol__least(i > 16 ? upper - ((uint64_t)1 << shift) : upper, h->max);
""")

bug("dump_one_too_few", "the dump leaves out the last reason",
    """    for (uint32_t i = OL_WHY_RULE; i <= OL_WHY_STALLED; i++) {
        ol_op op;""",
    """    for (uint32_t i = OL_WHY_RULE; i < OL_WHY_STALLED; i++) {
        ol_op op;""")

bug("pool_asleep", "a pool is said to sleep when one of its workers does",
    """    return ol__pool_sleepers(pool) >= OL_SYS_LOAD(&pool->started, OL_SYS_RELAXED);
""",
    """    return ol__pool_sleepers(pool) > 0;
""")

# ---- policies as text

bug("print_thousands", "2,048 bytes are printed as 2M",
    """    ol__say(out, "%llu%s", (unsigned long long)(n >> shift), shift == 20 ? "M" : shift ? "K" : "");
""",
    """    ol__say(out, "%llu%s", (unsigned long long)(n >> shift), shift ? "M" : "");
""")

bug("print_one_size", "a range of one size is printed without its end",
    """        if (r->max != r->min || !r->max) ol__say(&out, "-");
""",
    """        ol__say(&out, "-");
""")

bug("print_when_full", "what to do when the backend is full is printed for batch as for latency-critical work",
    """                ol__full_names[r->full]);
""",
    """                ol__full_names[r->full || r->cls != OL_BATCH ? r->full : (uint8_t)OL_FULL_WAIT]);
""")

bug("print_stops", "what has no room in the buffer isn't counted",
    """    out->at += (size_t)n; /* with these formats it can't fail */
""",
    """    out->at += room && (size_t)n > room ? room : (size_t)n;
""")


def plant(text, chosen):
    """The text with the bug in it; chosen None: none of them, all are only looked for."""
    planted = text
    for name, _, find, instead in BUGS:
        n = text.count(find)
        if n != 1:
            sys.exit(f"plant.py: {name}: what it changes occurs {n} times in offload.h, not once: plant it anew.\n{find}")
        if name == chosen:
            planted = text.replace(find, instead)
    return planted


def main():
    if len(sys.argv) not in (2, 3) or sys.argv[1] in ("--help", "-h"):
        print(__doc__.strip())
        sys.exit(0 if len(sys.argv) == 2 else 2)
    if sys.argv[1] == "--list":
        for name, what, _, _ in BUGS:
            print(f"{name}\t{what}")
        return
    chosen = sys.argv[2] if len(sys.argv) == 3 else None
    if chosen and chosen not in [b[0] for b in BUGS]:
        sys.exit(f"plant.py: there is no bug '{chosen}'; see --list")
    with open(sys.argv[1], encoding="utf-8") as f:
        text = plant(f.read(), chosen)
    if chosen:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
