cdef class Deadline:
    cdef public object _when
    cpdef remaining(self)
