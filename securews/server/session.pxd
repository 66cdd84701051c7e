cdef class Session:
    cdef object __weakref__
    cdef public object _calling, _ended, _events, _opened_at, connection, handler, ws
    cdef public bint _warned, event_driven
    cpdef message_received(self, message)
    cpdef dispatched(self, double began)
    cdef _warn_if_slow(self, double began, name)
