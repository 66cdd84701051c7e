cdef class SelectorPoller:
    cdef public object _selector
cdef class EpollPoller:
    cdef public object _epoll
    cdef public set _known
    cpdef poll(self, timeout)
