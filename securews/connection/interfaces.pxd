cdef class Consumer:
    cpdef data_received(self, bytes data)
    cpdef next_piece(self, Py_ssize_t limit)
    cpdef scheduled(self)
    cpdef flushed(self)
