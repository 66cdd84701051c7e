cdef class ReceiveQueue:
    cdef public object messages, pong
    cdef public Py_ssize_t _max_bytes, _max_messages, size
    cdef public bint discards, full
    cpdef extend(self, messages)
    cpdef bint make_room(self) except -1
    cpdef pop(self)
