cdef class Inbox:
    cdef public object messages, pong
    cdef public Py_ssize_t size
    cpdef extend(self, messages)
    cpdef pop(self)
