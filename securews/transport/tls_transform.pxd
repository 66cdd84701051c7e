from securews.transport.stream cimport Transform

cdef class TLSTransform(Transform):
    cdef public object _hello, _incoming, _outgoing, _policy, _read, _server_name, _tls, _verdict, _write
    cdef public bint _record_begun
    cdef public Py_ssize_t _useless
    cpdef receive(self, bytes data)
    cpdef receive_eof(self)
    cpdef send(self, data)
    cpdef take_outgoing(self)
    cdef _decrypt(self, Py_ssize_t size)
    cdef _decrypt_some(self)
    cdef _outcome(self)
