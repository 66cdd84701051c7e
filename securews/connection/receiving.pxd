from securews.connection.channel cimport Channel
from securews.connection.inbox cimport Inbox
from securews.common.locks cimport Lock
cdef class Receiving:
    cdef public object _changed, _connection, _receiver
    cdef public Channel _channel
    cdef public bint _discard, _waiting, curbed, paused
    cdef public Py_ssize_t _max_bytes, _max_messages
    cdef public Inbox inbox
    cdef public Lock _wake_up
    cpdef bint queue(self, list messages)
    cpdef notify(self)
    cdef _wait(self, what, find, timeout)
    cdef _wait_for_wake_up(self, seconds)
    cdef bint _resume(self) except -1
