cimport cython

cdef class SendQueue:
    cdef public list _frames
    cdef public object _behind, _pong, _rest, _urgent
    cdef public Py_ssize_t bound, ready, size
    cdef public long long taken
    cdef public bint streaming
    cpdef Py_ssize_t memory(self) except -1
    cpdef append(self, bytes frame)
    cpdef append_urgent(self, bytes frame)
    cpdef take(self, Py_ssize_t limit)
    cdef _grow(self, Py_ssize_t length)
    @cython.locals(room=Py_ssize_t, count=Py_ssize_t, frames=list, parts=list, frame=bytes)
    cdef _gather(self, Py_ssize_t limit)
    @cython.locals(gathered=Py_ssize_t)
    cdef Py_ssize_t _gather_control(self, list parts, Py_ssize_t limit)
