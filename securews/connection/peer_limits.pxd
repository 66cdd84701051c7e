cdef class TokenBucket:
    cdef public double rate, _burst, _tokens, _at
cdef class PeerLimits:
    cdef public object _began, _connection, _control, _messages, _timeout, _timer
    cdef public bint counts_messages
    cpdef message_finished(self)
