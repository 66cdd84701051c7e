cdef class Transform:
    cdef public object info
    cdef public bint ready
    cdef public Py_ssize_t bytes_available
    cpdef receive(self, bytes data)
    cpdef receive_eof(self)
    cpdef send(self, data)
    cpdef take_outgoing(self)
cdef class PlainTransform(Transform):
    cpdef receive(self, bytes data)
    cpdef receive_eof(self)
    cpdef send(self, data)
    cpdef take_outgoing(self)
cdef class TransformStream:
    cdef public object _pending, _sock, last_error, local_address, remote_address
    cdef public bint _ending, _fin_sent, _ready
    cdef public Transform _transform
    cpdef recv(self)
    cpdef send(self, data)
    cpdef flush(self)
    cdef _answer(self)
