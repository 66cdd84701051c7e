from securews.connection.channel cimport Channel
from securews.ground.deadlines cimport Timers

cdef class Loop:
    cdef object __weakref__
    cdef public double now
    cdef public Timers timers
    cdef public object _poller, _lock, _thread, _wake_read, _wake_write, on_signals
    cdef public dict _owners
    cdef public list _marked, _calls, _ended, _to_release
    cdef public bint _asleep, _stopping, _over
    cpdef mark(self, Channel channel)
    cpdef bint on_loop_thread(self)
    cpdef bint on_io_thread(self)
    cpdef _turn(self)
    cdef _do_what_was_asked(self)
    cdef _time_to_sleep(self)
    cdef _tell(self, owner, mask)
    cdef _give_turn(self, Channel channel)
    cdef _call(self, callback)
    cdef _release_ended(self)
    cdef _wake_receivers(self)
    cpdef release_later(self, lock)
