from securews.common.locks cimport Lock
from securews.connection.receive_queue cimport ReceiveQueue
from securews.connection.send_queue cimport SendQueue
from securews.loop.loop cimport Loop, Owner
from securews.loop.relay cimport RelayedCondition
from securews.protocol.closing cimport Closing

cdef class Link:
    cdef public object _changed, _patience, _room, abort_error
    cdef public bint _asked, _dropped, _out_of_time, _scheduled, aborted, blocked, ended, report_takes
    cdef public Lock _lock
    cdef public Loop _loop
    cdef public Owner _owner
    cdef public RelayedCondition _arrived
    cdef public Closing closing
    cdef public ReceiveQueue receiving
    cdef public SendQueue sending
    cpdef hold_schedule(self)
    cpdef bint begin_turn(self) except -1
    cdef bint _ask(self) except -1
    cdef bint _ask_to_send(self) except -1
    cpdef next_piece(self, Py_ssize_t limit)
    cpdef send(self, bytes frame, timeout)
    cpdef bint offer(self, bytes frame, Py_ssize_t bound) except -1
    cdef _check_open(self)
    cpdef bint deliver(self, list messages) except -1
    cpdef take(self, what, find, timeout)
    cdef _wake_receivers(self)
    cdef _wait_for(self, what, find, timeout)
    cdef bint _make_room(self) except -1
