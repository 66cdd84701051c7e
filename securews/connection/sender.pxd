cimport cython

from securews.connection.channel cimport Channel
from securews.connection.link cimport Link
from securews.loop.loop cimport Loop

cdef Py_ssize_t EARLY_BYTES
cdef double EARLY_SECONDS

cdef class Sender:
    cdef public object _name, compressing
    cdef public Py_ssize_t _bound, _hard_bound, _unoffered_bound
    cdef public bint _drop, _masked
    cdef public Channel _channel
    cdef public Link _link
    cdef public Loop _loop
    cpdef bytes frame(self, opcode, payload, bint fin=*, bint compressed=*)
    cpdef send_message(self, opcode, payload, timeout=*, bint compress=*)
    cpdef send(self, bytes frame, timeout=*)
    cpdef bint offer(self, bytes frame) except -1
    cpdef offer_shared(self, message)
    @cython.locals(now=double)
    cdef _flush_early(self)
    cpdef make_room(self)
    cpdef bint put(self, bytes frame) except -1
    cpdef sent(self)
    cdef Py_ssize_t _hard_bound_here(self) except -1
    cdef _flush_now(self)
