cimport cython

from securews.connection.channel cimport Channel
from securews.connection.interfaces cimport Consumer
from securews.connection.link cimport Link
from securews.connection.send_queue cimport SendQueue
from securews.connection.sender cimport Sender
from securews.connection.watchdog cimport Watchdog
from securews.loop.loop cimport Loop
from securews.protocol.parser cimport WebSocketParser

cdef double CALLBACK_SECONDS

cdef class Intake(Consumer):
    cdef public object _end_reason, _message_received, observer, options
    cdef public list _events
    cdef public bint _event_driven, _gone, _ignores, _over, _paused
    cdef public Channel channel
    cdef public Link link
    cdef public Loop loop
    cdef public Sender sender
    cdef public Watchdog _watchdog
    cdef public WebSocketParser parser
    cdef _receive(self, bytes data)
    cdef _go_on(self)
    cdef bint _queue_full(self) except -1
    @cython.locals(events=list, queued=list, sending=SendQueue, index=Py_ssize_t, messages=Py_ssize_t, control=Py_ssize_t, until=double)
    cdef _dispatch(self, double began)
    @cython.locals(now=double)
    cdef bint _is_late(self, double until) except -1
    cdef bint _must_wait(self) except -1
    cdef _deliver(self, list queued)
    @cython.locals(read=bint, left_over=bint)
    cpdef _read_or_pause(self)
