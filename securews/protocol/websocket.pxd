cimport cython

from securews.protocol.messages cimport IncomingMessage
cdef class WebSocketProtocol:
    cdef public bint _close_sent, _frame_fin, _masked, in_message, paused
    cdef public object _end_received, _frame_key, _random_key
    cdef public Py_ssize_t _control_left, _frame_left, _kept_from, _max_control, _max_size, unfinished
    cdef public bytes _kept
    cdef public IncomingMessage _message
    @cython.locals(position=Py_ssize_t)
    cpdef receive(self, bytes data, room=*)
    cdef _keep(self, bytes data, Py_ssize_t position)
    @cython.locals(end=Py_ssize_t, before=Py_ssize_t, count=Py_ssize_t)
    cdef Py_ssize_t _parse(self, bytes data, Py_ssize_t position, list events, room) except -1
    @cython.locals(size=Py_ssize_t)
    cdef Py_ssize_t _take_frame(self, bytes data, Py_ssize_t position, list events) except -1
