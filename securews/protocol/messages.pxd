cdef class IncomingMessage:
    cdef public object _buffer, _decoder, _inflater, max_compressed
    cdef public bint _text, begun, compressed
    cdef public Py_ssize_t _empty, _frames, _max_fragments, _max_size, _received
    cpdef Py_ssize_t memory(self) except -1
