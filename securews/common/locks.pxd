from cpython.pythread cimport PyThread_type_lock

cdef class Lock:
    cdef PyThread_type_lock _lock
    cdef bint _locked
    cpdef bint acquire(self, bint blocking=*) except -1
    cpdef release(self)

cpdef bint hand_over(Lock following, Lock mine, seconds) except -1
