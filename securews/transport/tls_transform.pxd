cimport cython

from securews.transport.stream cimport Transform

cdef class TLSTransform(Transform):
    cdef public object _hello, _incoming, _outgoing, _policy, _read, _server_name, _tls, _verdict, _write
    cdef public bytes _kept
    cdef public Py_ssize_t _missing, _useless
    cpdef receive(self, bytes data)
    cpdef receive_eof(self)
    cpdef send(self, data)
    cpdef take_outgoing(self)
    @cython.locals(begin=Py_ssize_t, end=Py_ssize_t, records=Py_ssize_t, share=Py_ssize_t, size=Py_ssize_t)
    cdef _decrypt_share(self, bytes data, list parts)
    @cython.locals(end=Py_ssize_t, behind=Py_ssize_t, records=Py_ssize_t, limit=Py_ssize_t, last_header=Py_ssize_t)
    cdef _next_group(self, bytes data, Py_ssize_t begin)
    cdef Py_ssize_t _decrypt(self, data, Py_ssize_t records, list parts, bint begun=*) except -1
    cdef _outcome(self)
