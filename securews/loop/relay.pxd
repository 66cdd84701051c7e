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

cdef class RelayedCondition:
    cdef public object waiter
    cdef public Lock _lock, _wake_up
    cdef public Relay _relay
    cdef public bint _waiting
    cpdef notify(self)
    cpdef wait(self, seconds)
