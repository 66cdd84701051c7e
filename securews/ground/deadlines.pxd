cimport cython

cdef class Deadline:
    cdef public object _when
    cpdef remaining(self)

cdef class Timer:
    cdef public Timers _timers
    cdef public object when, callback

cdef class Timers:
    cdef public list _heap
    cdef public object _order
    cdef public Py_ssize_t _cancelled
    @cython.locals(timer=Timer)
    cpdef next_due(self)
    cpdef take_due(self, double now)
