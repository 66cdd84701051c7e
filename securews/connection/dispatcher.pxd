cimport cython

from securews.connection.channel cimport Channel

cdef class Dispatcher:
    cdef public object _connection, _message_received
    cdef public list events
    cdef public Py_ssize_t _bound
    cdef public Channel _channel
    cdef public bint _event_driven, _ignores, last
    @cython.locals(events=list, queued=list, index=Py_ssize_t, messages=Py_ssize_t, control=Py_ssize_t)
    cpdef run(self)
    cdef bint _must_wait(self) except -1
    cdef _hand_over(self, list queued)
