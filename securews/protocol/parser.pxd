cimport cython

from securews.protocol.messages cimport IncomingMessage
cdef class WebSocketParser:
    cdef public bint _ended, _frame_fin, _masked, in_message, paused
    cdef public object _frame_key
    cdef public Py_ssize_t _control_left, _frame_left, _kept_from, _max_control, _max_size, unfinished
    cdef public bytes _kept
    cdef public IncomingMessage _message
    @cython.locals(position=Py_ssize_t)
    cpdef receive(self, bytes data, room=*, Py_ssize_t work=*)
    cdef _keep(self, bytes data, Py_ssize_t position)
    @cython.locals(end=Py_ssize_t, before=Py_ssize_t, count=Py_ssize_t, memory=Py_ssize_t, most=Py_ssize_t)
    cdef Py_ssize_t _parse(self, bytes data, Py_ssize_t position, list events, room, Py_ssize_t work) except -1
    @cython.locals(size=Py_ssize_t, most=Py_ssize_t)
    cdef Py_ssize_t _take_frame(self, bytes data, Py_ssize_t position, list events) except -1
