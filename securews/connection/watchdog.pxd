cdef class TokenBucket:
    cdef public double rate, _burst, _tokens, _at
cdef class Watchdog:
    cdef public object _asked_at, _control, _interval, _message_began, _message_due, _message_timeout, _messages, _ping_due, _ping_timeout
    cdef public bint _warned, counts_messages
    cpdef message_finished(self)
