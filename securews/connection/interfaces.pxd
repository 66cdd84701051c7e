from securews.connection.relay cimport Relay
from securews.ground.deadlines cimport Timers

cdef class IOLoop:
    cdef public double now
    cdef public Relay relay
    cdef public Timers timers
    cpdef mark(self, channel)
    cpdef bint on_loop_thread(self) except -1
    cpdef bint on_io_thread(self) except -1
