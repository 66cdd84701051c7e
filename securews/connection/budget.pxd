cdef class Budget:
    cdef public Py_ssize_t total
    cdef public double _limit
    cdef public dict _condemned, _held, _paused
    cdef public set _gone
    cpdef list account(self, object holder, Py_ssize_t held, Py_ssize_t movable=*, bint gone=*)
    cdef list _pause_or_resume(self, object holder, Py_ssize_t movable)
    cdef list _make_room(self)
