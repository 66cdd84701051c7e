cdef class TransformStream:
    cdef public object _pending, _sock, _transform, last_error, local_address, remote_address
    cdef public bint _ending, _fin_sent, _ready
    cpdef recv(self)
    cpdef send(self, data)
    cpdef flush(self)
    cdef _answer(self)
