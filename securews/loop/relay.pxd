from securews.common.locks cimport Lock

cdef class Relay:
    cdef public object _waiting
    cdef public Lock _lock, _over
    cdef public list _to_wake
    cdef public bint _under_way
    cdef public double _distrust_until
    cpdef add(self, Lock wake_up)
    cpdef wake(self, double now)
    cpdef wait(self, Lock wake_up, seconds)
    cdef Lock _next(self)
