cdef class Closing:
    cdef public object code, initiator, reason, state
    cdef public bint may_send
