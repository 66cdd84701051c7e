from securews.connection.channel cimport Channel
from securews.connection.interfaces cimport IOLoop
from securews.ground.locks cimport Lock

cdef class Loop(IOLoop):
    cdef object __weakref__
    cdef public object _poller, _thread, _wake_read, _wake_write, on_signals
    cdef public Lock _lock
    cdef public dict _owners
    cdef public list _marked, _calls, _ended
    cdef public bint _asleep, _stopping, _over
    cpdef _turn(self)
    cdef _do_what_was_asked(self)
    cdef _time_to_sleep(self)
    cdef _tell(self, owner, mask)
    cdef _give_turn(self, Channel channel)
    cdef _call(self, callback)
    cdef _release_ended(self)
