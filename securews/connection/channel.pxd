from securews.loop.loop cimport Loop, Owner
from securews.connection.outbox cimport Outbox
from securews.common.locks cimport Lock

cdef class Channel(Owner):
    cdef public object _abort_error, _phase_timer, _released, _watched, _write_timer, consumer, room, stream, write_timeout, phase
    cdef public bint _aborted, _asked, _blocked, _marked, _reading, _was_blocked
    cdef public double _blocked_at, _idle_since, received_at
    cdef public Py_ssize_t _drain_left, _idle_reads
    cdef public Loop loop
    cdef public Lock lock
    cdef public Outbox outbox
    cpdef bint mark_locked(self)
    cpdef bint mark_to_send_locked(self)
    cpdef on_ready(self, long mask)
    cpdef turn(self)
    cpdef flush(self)
    cpdef flush_early(self)
    cdef bint _send_waiting(self) except -1
    cdef _read_once(self)
    cdef _read(self)
    cdef _flushed(self)
