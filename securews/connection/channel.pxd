cimport cython

from securews.connection.interfaces cimport Consumer
from securews.loop.loop cimport Loop, Owner

cdef class Channel(Owner):
    cdef public object _released, _watched, _write_timer, _phase_timer, stream, write_timeout, phase
    cdef public bint _blocked, _continuing, _reading, _was_blocked
    cdef public double _idle_since, _progress_at, blocked_at, received_at
    cdef public Py_ssize_t _drain_left, _idle_reads, _in_kernel
    cdef public Consumer consumer
    cdef public Loop loop
    @cython.locals(consumer=Consumer)
    cpdef on_ready(self, long mask)
    @cython.locals(consumer=Consumer)
    cpdef flush_scheduled(self)
    @cython.locals(consumer=Consumer)
    cpdef continue_work(self)
    cpdef continue_later(self)
    cpdef flush(self)
    cpdef flush_in_callback(self)
    @cython.locals(consumer=Consumer)
    cdef bint _send_waiting(self) except -1
    @cython.locals(consumer=Consumer)
    cdef _all_sent(self)
    @cython.locals(consumer=Consumer)
    cdef _read(self)
