from securews.ground.deadlines cimport Timers

cdef class IOLoop:
    cdef public double now
    cdef public Timers timers
    cpdef mark(self, channel)
    cpdef release_later(self, lock)
    cpdef bint on_loop_thread(self) except -1
    cpdef bint on_io_thread(self) except -1
