from securews.connection.budget cimport Budget
from securews.connection.intake cimport Intake
from securews.connection.link cimport Link

cdef class Connection(Intake):
    cdef public Budget _budget
    cdef public object _close_timer, _pings, _watch_timer, name
    cdef public Py_ssize_t _held
    cdef public bint _finished
    cpdef _report_held(self)
    cdef Py_ssize_t _memory_held(self) except -1
    cdef _account(self, Py_ssize_t held)
