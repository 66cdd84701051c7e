from securews.connection.interfaces cimport Consumer
from securews.loop.loop cimport Loop, Owner

cdef class Channel(Owner):
    cdef public object _released, _watched, _write_timer, _phase_timer, stream, write_timeout, phase
    cdef public bint _blocked, _continuing, _reading, _was_blocked
    cdef public double _idle_since, blocked_at, received_at
    cdef public Py_ssize_t _drain_left, _idle_reads, _in_kernel
    cdef public Consumer consumer
    cdef public Loop loop
    cpdef continue_later(self)
    cpdef flush(self)
    cpdef flush_in_callback(self)
    cdef bint _send_waiting(self) except -1
    cdef _all_sent(self)
    cdef _read(self)
