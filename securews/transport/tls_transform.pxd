cdef class TLSTransform:
    cdef public object _hello, _incoming, _outgoing, _policy, _read, _server_name, _tls, _verdict, _write, info
    cdef public bint _record_begun, _said, ready
    cdef public Py_ssize_t _useless
    cpdef receive(self, bytes data)
    cpdef send(self, data)
    cpdef take_outgoing(self)
    cdef _decrypt(self, Py_ssize_t size)
    cdef _decrypt_some(self)
    cdef _outcome(self)
