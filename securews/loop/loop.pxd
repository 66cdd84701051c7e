from securews.common.locks cimport Lock
from securews.loop.relay cimport Relay
from securews.loop.timers cimport Timer, Timers
cimport cython

cdef class Owner:
    cdef public object fd
    cpdef on_ready(self, long mask)
    cpdef flush_scheduled(self)
    cpdef continue_work(self)

cdef class Loop:
    cdef object __weakref__
    cdef public double now
    cdef public Relay relay
    cdef public Timers timers
    cdef public object clock, _poller, _thread, _wake_read, _wake_write, _left_over, caller, on_failure, on_signals
    cdef public Lock _lock
    cdef public dict _owners
    cdef public list _scheduled, _calls, _ended
    cdef public bint _asleep, _stopping, _over
    cpdef bint on_loop_thread(self) except -1
    cpdef bint on_io_thread(self) except -1
    cpdef schedule(self, Owner owner)
    @cython.locals(timer=Timer, polled=double)
    cpdef turn(self)
    @cython.locals(owner=Owner)
    cdef _do_what_was_asked(self)
    @cython.locals(until=double)
    cdef _continue_for_a_slice(self)
    @cython.locals(owner=Owner)
    cdef _continue_next(self)
    cdef _time_to_sleep(self)
    cdef _tell(self, owner, mask)
    cdef _call(self, callback)
    cdef _release_ended(self)
