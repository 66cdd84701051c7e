cimport cython

cdef class Timer:
    cdef public Timers _timers
    cdef public object when, callback
    cpdef take_callback(self)

cdef class Timers:
    cdef public list _heap
    cdef public object _order
    cdef public Py_ssize_t _cancelled
    @cython.locals(timer=Timer)
    cpdef next_due(self)
    @cython.locals(timer=Timer)
    cpdef list take_due(self, double now)
