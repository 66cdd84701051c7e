cimport cython

from securews.connection.channel cimport Channel

cdef Py_ssize_t EARLY_BYTES
cdef double EARLY_SECONDS

cdef class Sending:
    cdef public object _connection, _drop, _full_at, _full_taken, _patience, compressing
    cdef public Py_ssize_t _bound
    cdef public Channel _channel
    cdef public bint _masked
    cpdef bytes frame(self, opcode, payload, bint fin=*, bint compressed=*)
    cpdef send(self, bytes frame, timeout=*)
    cpdef offer(self, bytes frame)
    cpdef offer_shared(self, message)
    cpdef flush_early(self)
    @cython.locals(late=double)
    cdef _flush_early(self)
    cdef bint _is_full(self)
    cdef _check_open(self)
